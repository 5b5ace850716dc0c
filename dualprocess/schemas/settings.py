"""Settings for making images and training LoRAs. Presets and jobs have complete settings; users
send optional ones, and what they leave out comes from the preset."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from dualprocess.schemas.fields import (
    Accumulate,
    Alpha,
    Anchor,
    ArtifactName,
    Batch,
    CheckpointEvery,
    EvalEvery,
    EvalImages,
    EvalSeed,
    GradNorm,
    Guidance,
    InferenceSteps,
    JobId,
    LearningRate,
    LoraDtype,
    LoraInit,
    Margin,
    Model,
    Modules,
    NegativePrompt,
    NoiseSeeds,
    Rank,
    SafetensorsBytes,
    Side,
    Steps,
    Timestep,
    TrainSeed,
    Weight,
    WeightDecay,
    WorstCase,
)


class ImageSettings(Model):
    width: Side
    height: Side
    num_inference_steps: InferenceSteps
    guidance_scale: Guidance
    negative_prompt: NegativePrompt = ""


class LoraStart(Model):
    """The LoRA to begin with: that of an earlier job of the same generator, or a file's.

    What it lacks of rank and target modules begins as without it.
    """

    job: Annotated[JobId | None, Field(description="An ended job of the same generator.")] = None
    artifact: Annotated[ArtifactName, Field(description="Which of the job's files to use.")] = (
        "pytorch_lora_weights.safetensors"
    )
    file: Annotated[
        SafetensorsBytes | None,
        Field(description="A LoRA from elsewhere, a safetensors file, in base64."),
    ] = None

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.job is None) == (self.file is None):
            raise ValueError("write either a job or a file")
        return self


class LoraSettings(Model):
    rank: Rank = 16
    alpha: Alpha = 8.0
    weight: Weight = 5.0
    target_modules: Modules
    init: LoraInit = "gaussian"
    dtype: LoraDtype = "auto"


class JobLoraSettings(LoraSettings):
    """The fields that a job has and a preset has not."""

    start: LoraStart | None = None


class OptimizerSettings(Model):
    steps: Steps = 100
    batch: Batch = 1
    accumulate: Accumulate = 1
    lr: LearningRate = 5e-5
    weight_decay: WeightDecay = 0.0
    max_grad_norm: GradNorm = 1.0
    seed: TrainSeed = 100
    noise_seeds: NoiseSeeds = None
    timestep: Timestep = "random"
    checkpoint_every: CheckpointEvery = 20

    @model_validator(mode="before")
    @classmethod
    def _of_an_earlier_version(cls, values: Any) -> Any:
        """Jobs that were stored, and presets that were written, with ``subsample``."""
        if isinstance(values, dict) and isinstance(values.get("subsample"), bool):
            values = dict(values)
            subsample = values.pop("subsample")
            values.setdefault("timestep", "random" if subsample else "last")
        return values


class GuardSettings(Model):
    """Settings that keep the rest of the picture as the base model draws it. The defaults here turn
    everything off, which is the paper's method."""

    anchor: Anchor = 0.0
    margin: Margin = 1.0
    worst_case: WorstCase = 0.0

    @property
    def is_on(self) -> bool:
        return self != GuardSettings()


class EvalSettings(Model):
    images: EvalImages = 5
    seed: EvalSeed = 0
    every: EvalEvery = 20


class ImageOptions(Model):
    width: Side | None = None
    height: Side | None = None
    num_inference_steps: InferenceSteps | None = None
    guidance_scale: Guidance | None = None
    negative_prompt: NegativePrompt | None = None


class LoraOptions(Model):
    rank: Rank | None = None
    alpha: Alpha | None = None
    weight: Weight | None = None
    target_modules: Modules | None = None
    init: LoraInit | None = None
    dtype: LoraDtype | None = None
    start: LoraStart | None = None


class OptimizerOptions(Model):
    steps: Steps | None = None
    batch: Batch | None = None
    accumulate: Accumulate | None = None
    lr: LearningRate | None = None
    weight_decay: WeightDecay | None = None
    max_grad_norm: GradNorm | None = None
    seed: TrainSeed | None = None
    noise_seeds: NoiseSeeds = None
    timestep: Timestep | None = None
    checkpoint_every: CheckpointEvery | None = None

    @model_validator(mode="before")
    @classmethod
    def _named_otherwise(cls, values: Any) -> Any:
        if isinstance(values, dict) and "subsample" in values:
            raise ValueError(
                "subsample is now optimizer.timestep: write timestep: random for subsample: true, "
                "timestep: last for false"
            )
        return values


class EvalOptions(Model):
    images: EvalImages | None = None
    seed: EvalSeed | None = None
    every: EvalEvery | None = None


def _null_is_off(value: Any) -> Any:
    return GuardSettings().margin if value is None else value


class GuardOptions(Model):
    """The word ``off`` instead of an object turns everything off."""

    anchor: Anchor | None = None
    # This runs only for a guard that was written; otherwise it comes from the preset.
    margin: Annotated[Margin | None, BeforeValidator(_null_is_off)] = None
    worst_case: WorstCase | None = None


def _all_off(value: Any) -> Any:
    # YAML reads the word ``off`` as false.
    if value == "off" or value is False:
        return GuardSettings().model_dump()
    if not isinstance(value, dict | GuardOptions):
        raise ValueError("write off, or an object with anchor, margin and worst_case")
    return value


Guard = Annotated[
    GuardOptions,
    BeforeValidator(_all_off, json_schema_input_type=Literal["off"] | GuardOptions),
    Field(description="Keeps the rest of the picture as the base model draws it."),
]
