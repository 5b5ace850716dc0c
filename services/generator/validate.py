"""What a generator refuses before it spends time: the sentences name the field and the remedy.

The orchestrator checks the same at its own edge; this is for whoever calls the wire directly.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from dualprocess.v1 import generator_pb2 as pb
from dualprocess.v1 import tensor_pb2
from services.common.errors import InvalidInput
from services.common.limits import (
    MAX_IMAGES,
    MAX_LORAS,
    MAX_TEACHERS,
    batch_fault,
    guard_faults,
    image_faults,
    text_fault,
)
from services.common.presets import GeneratorPreset

MAX_STEPS = 10_000
MAX_PROMPTS = 1000
MAX_RANK = 256
_FILE_DTYPES = (
    tensor_pb2.DTYPE_UNSPECIFIED,
    tensor_pb2.DTYPE_FLOAT32,
    tensor_pb2.DTYPE_BFLOAT16,
)


def optimize_spec(spec: pb.OptimizeSpec, preset: GeneratorPreset) -> None:
    """Raises ``InvalidInput`` for the first thing that is wrong."""
    _prompts(spec.prompts)
    if not spec.questions:
        raise InvalidInput("questions: at least one is needed; the VLM has nothing to teach")
    if not spec.vlms:
        raise InvalidInput("vlms: at least one is needed, to teach")
    if len(spec.vlms) > MAX_TEACHERS:
        raise InvalidInput(f"vlms: at most {MAX_TEACHERS}, not {len(spec.vlms)}")
    for index, vlm in enumerate(spec.vlms):
        if not re.fullmatch(r"[\x21-\x7e]+", vlm.target):
            message = "send the gRPC target of a VLM service, like 10.0.0.7:50052"
            raise InvalidInput(f"vlms.{index}.target: {message}")
        if not (math.isfinite(vlm.weight) and vlm.weight > 0):
            raise InvalidInput(f"vlms.{index}.weight: must be positive")
    _image(spec.image, preset)
    _lora(spec.lora)
    _optimizer(spec.optimizer)
    _guard(spec.guard)
    if spec.HasField("resume"):
        if not spec.resume.blob:
            raise InvalidInput("resume.blob: missing; name the blob that holds the checkpoint")
        _between("resume.step", spec.resume.step, 1, spec.optimizer.steps)
    _between("eval.images", spec.eval.images, 1, MAX_IMAGES)
    fault = batch_fault(
        preset, spec.image, spec.optimizer.batch, spec.questions, spec.question_postfix
    )
    if fault:
        raise InvalidInput(": ".join(fault))


def generate_spec(spec: pb.GenerateSpec, preset: GeneratorPreset) -> None:
    """Raises ``InvalidInput`` for the first thing that is wrong."""
    _prompts([spec.prompt])
    _image(spec.image, preset)
    _between("seeds", len(spec.seeds), 1, MAX_IMAGES)
    _between("loras", len(spec.loras), 0, MAX_LORAS)
    for index, lora in enumerate(spec.loras):
        if not math.isfinite(lora.weight):
            raise InvalidInput(f"loras.{index}.weight: must be finite")


def _prompts(prompts: Iterable[str]) -> None:
    listed = list(prompts)
    if not listed or not all(prompt.strip() for prompt in listed):
        raise InvalidInput("prompts: at least one is needed, and none may be empty")
    if len(listed) > MAX_PROMPTS:
        raise InvalidInput(f"prompts: at most {MAX_PROMPTS}, not {len(listed)}")
    for index, prompt in enumerate(listed):
        if fault := text_fault(prompt):
            raise InvalidInput(f"prompts.{index}: {fault}")


def _image(image: pb.ImageSpec, preset: GeneratorPreset) -> None:
    for field, fault in image_faults(preset, image):
        raise InvalidInput(f"image.{field}: {fault}")
    if long := text_fault(image.negative_prompt):
        raise InvalidInput(f"image.negative_prompt: {long}")
    _between("image.num_inference_steps", image.num_inference_steps, 1, 200)
    if not (math.isfinite(image.guidance_scale) and image.guidance_scale >= 0):
        raise InvalidInput("image.guidance_scale: must be finite and not negative")


def _lora(lora: pb.LoraSpec) -> None:
    _between("lora.rank", lora.rank, 1, MAX_RANK)
    if not (math.isfinite(lora.alpha) and lora.alpha > 0):
        raise InvalidInput("lora.alpha: must be positive")
    if not math.isfinite(lora.weight) or lora.weight == 0:
        raise InvalidInput("lora.weight: must be finite, and not 0: with 0 nothing is learned")
    if not lora.target_modules:
        raise InvalidInput("lora.target_modules: name at least one layer")
    if lora.init == pb.LORA_INIT_UNSPECIFIED:
        raise InvalidInput("lora.init: choose LORA_INIT_GAUSSIAN or LORA_INIT_KAIMING")
    if lora.dtype not in _FILE_DTYPES:
        raise InvalidInput("lora.dtype: choose DTYPE_FLOAT32 or DTYPE_BFLOAT16, or leave it out")


def _optimizer(optimizer: pb.OptimizerSpec) -> None:
    _between("optimizer.steps", optimizer.steps, 1, MAX_STEPS)
    _between("optimizer.batch", optimizer.batch, 1, MAX_IMAGES)
    _between("optimizer.accumulate", optimizer.accumulate, 1, MAX_IMAGES)
    _between("optimizer.noise_seeds", optimizer.noise_seeds, 1, MAX_STEPS)
    for name, value in (("lr", optimizer.lr), ("max_grad_norm", optimizer.max_grad_norm)):
        if not (math.isfinite(value) and value > 0):
            raise InvalidInput(f"optimizer.{name}: must be positive")
    if not (math.isfinite(optimizer.weight_decay) and optimizer.weight_decay >= 0):
        raise InvalidInput("optimizer.weight_decay: must be finite and not negative")
    if optimizer.timestep == pb.TIMESTEP_UNSPECIFIED:
        raise InvalidInput(
            "optimizer.timestep: choose TIMESTEP_RANDOM, TIMESTEP_FIRST or TIMESTEP_LAST"
        )


def _guard(guard: pb.GuardSpec) -> None:
    if not (math.isfinite(guard.anchor) and guard.anchor >= 0):
        raise InvalidInput("guard.anchor: must be finite and not negative")
    for fault in guard_faults(guard):
        raise InvalidInput(": ".join(fault))


def _between(field: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise InvalidInput(f"{field}: must be between {low} and {high}, not {value}")
