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


class GeneratorInfo(Model):
    name: str
    family: str
    model: str
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
