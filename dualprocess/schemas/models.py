"""What `GET /v1/models` lists."""

from __future__ import annotations

from dualprocess.schemas.fields import Model
from dualprocess.schemas.settings import (
    EvalSettings,
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
    eval: EvalSettings


class VlmInfo(Model):
    name: str
    family: str
    model: str
    live_workers: int


class ModelList(Model):
    generators: list[GeneratorInfo]
    vlms: list[VlmInfo]
