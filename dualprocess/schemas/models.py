"""What `GET /v1/models` and `GET /v1/version` tell."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dualprocess.schemas.fields import Model
from dualprocess.schemas.settings import (
    EvalSettings,
    GuardSettings,
    ImageSettings,
    LoraSettings,
    OptimizerSettings,
)


class License(Model):
    """The licence of a model, in the words of the hub's model cards."""

    id: Annotated[
        str, Field(description="The hub's identifier, like apache-2.0; other: see name and link.")
    ]
    name: str | None = None
    link: str | None = None


class GeneratorInfo(Model):
    name: str
    family: str
    model: str
    is_on_hub: Annotated[
        bool, Field(description="Whether `model` is a name on the hub; else a folder.")
    ] = False
    license: Annotated[
        License | None, Field(description="Of the model; null if the preset does not say.")
    ] = None
    live_workers: int
    image: ImageSettings
    lora: LoraSettings
    optimizer: OptimizerSettings
    guard: GuardSettings
    eval: EvalSettings


class VlmInfo(Model):
    name: str
    family: str
    model: str
    live_workers: int
    writes: Annotated[bool, Field(description="Whether it can write questions and expand prompts.")]


class ModelList(Model):
    generators: list[GeneratorInfo]
    vlms: list[VlmInfo]
    writer: Annotated[
        str | None,
        Field(
            description="The service's language model, which writes if a request names no VLM; "
            "null if there is none."
        ),
    ] = None


class Version(Model):
    """The version of a service."""

    version: str
