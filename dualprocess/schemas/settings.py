"""How images are made and LoRAs trained: complete, as presets and jobs have it, and optional, as
users send it. What a user leaves out comes from the preset."""

from __future__ import annotations

from dualprocess.schemas.fields import (
    Accumulate,
    Alpha,
    Batch,
    EvalEvery,
    EvalImages,
    GradNorm,
    Guidance,
    InferenceSteps,
    LearningRate,
    LoraInit,
    Model,
    Modules,
    NegativePrompt,
    NoiseSeeds,
    Rank,
    Seed,
    Side,
    Steps,
    Subsample,
    Weight,
    WeightDecay,
)


class ImageSettings(Model):
    width: Side
    height: Side
    num_inference_steps: InferenceSteps
    guidance_scale: Guidance
    negative_prompt: NegativePrompt = ""


class LoraSettings(Model):
    rank: Rank = 16
    alpha: Alpha = 8.0
    weight: Weight = 5.0
    target_modules: Modules
    init: LoraInit = "gaussian"


class OptimizerSettings(Model):
    steps: Steps = 100
    batch: Batch = 1
    accumulate: Accumulate = 1
    lr: LearningRate = 5e-5
    weight_decay: WeightDecay = 0.0
    max_grad_norm: GradNorm = 1.0
    seed: Seed = 100
    noise_seeds: NoiseSeeds = None
    subsample: Subsample = True


class EvalSettings(Model):
    images: EvalImages = 5
    seed: Seed = 0
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


class OptimizerOptions(Model):
    steps: Steps | None = None
    batch: Batch | None = None
    accumulate: Accumulate | None = None
    lr: LearningRate | None = None
    weight_decay: WeightDecay | None = None
    max_grad_norm: GradNorm | None = None
    seed: Seed | None = None
    noise_seeds: NoiseSeeds = None
    subsample: Subsample | None = None


class EvalOptions(Model):
    images: EvalImages | None = None
    seed: Seed | None = None
    every: EvalEvery | None = None
