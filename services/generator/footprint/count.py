"""Counts one training step of a full-size generator, on fake tensors, with the service's own
code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

import torch

from dualprocess.v1 import generator_pb2 as pb
from services.common.footprint.choice import SMALLER
from services.common.footprint.fake import (
    HOST,
    bytes_of,
    largest_layer,
    unmoved,
    weightless,
    weights_of,
)
from services.common.footprint.footprint import Footprint, Work
from services.common.footprint.kernels import as_on_cuda
from services.common.footprint.meter import Meter, marked
from services.common.memory import LEVELS
from services.common.presets import GeneratorPreset, PresetError
from services.generator import draws
from services.generator.architecture import assembled, networks
from services.generator.families.base import Conditioning, GeneratorFamily, Schedule
from services.generator.memory import levels
from services.generator.registry import usual_image
from services.generator.training import Training

#: As long as people write; an encoder that pads reads its own length whatever the prompt.
_PROMPT = " ".join(["a photo of a man with a red umbrella who smiles in the rain"] * 3)
_FLOAT32 = 4
#: The phases of a step but for the sampler's.
_STEP = ("denoiser", "decoder", "compare", "decoder backward", "denoiser backward", "update")


def weightless_generator(preset: GeneratorPreset) -> GeneratorFamily:
    """The preset's generator in full size, without memory. Raises ``PresetError``."""
    with weightless():
        made = networks(preset, HOST)
    for network in made.values():
        # Building without numbers leaves it out.
        getattr(network, "tie_weights", _nothing)()
    with unmoved():
        return assembled(preset, made, HOST)


def _nothing() -> None:
    pass


def at_every_setting(preset: GeneratorPreset, size: int, batch: int) -> Iterator[Footprint]:
    """With its weights as they are and quantised, from the fastest level to the smallest. Raises
    ``PresetError``, also for a size that the preset does not draw."""
    if not preset.sides.allows(size):
        near = " or ".join(map(str, preset.sides.nearest(size)))
        raise PresetError(f"--size: {preset.name} does not draw {size} pixels; write {near}")
    plain = weightless_generator(preset.model_copy(update={"quantize": None}))
    exact: list[Footprint] = []
    # From the smallest, whose text encoders are streamed; the others may have to do that, too.
    streaming = 0
    for level in reversed(LEVELS):
        with unmoved():
            levels.apply(plain, level)
        work = Work("generator", preset.name, size, batch, 0, level, None)
        found = footprint(plain, work, streaming)
        streaming = found.streamed - found.weights
        exact.insert(0, found)
    yield from exact
    for quantization in SMALLER:
        family = weightless_generator(preset.model_copy(update={"quantize": quantization}))
        largest = largest_layer(family.denoiser, *family.text_encoders)
        for found in exact:
            with unmoved():
                levels.apply(family, found.work.level)
            weights, text = _weights(family)
            yield found.quantised(quantization, weights, text, largest)


def _weights(family: GeneratorFamily) -> tuple[int, int]:
    """Bytes on the device: of what is always there, and of the text encoders while they encode."""
    frozen = weights_of(family.denoiser, family.vae)
    return bytes_of(frozen), bytes_of(weights_of(*family.text_encoders))


def footprint(family: GeneratorFamily, work: Work, streaming: int) -> Footprint:
    """One step of one job, as the preset has it, at the work's size and batch; with ``family`` at
    the work's memory level already. ``streaming`` are the bytes besides the weights that encoding
    takes with text encoders that are streamed, for a level that does not stream them."""
    spec = _spec(family, work)
    frozen = weights_of(family.denoiser, family.vae)
    weights, text = _weights(family)
    # A prompt that was encoded before would not be counted.
    family._encodings.clear()
    meter = Meter()
    meter.ignore([*frozen, *weights_of(*family.text_encoders)])
    with as_on_cuda(), unmoved(), meter, _phases(family, meter):
        meter.phase = "encode"
        family.encode_all(spec.prompts, spec.image)
        meter.phase = "begin"
        training = Training(family, spec, "footprint")
        lora = _FLOAT32 * training.trainable_parameters
        try:
            held = _step(training, meter)
        finally:
            training.close()
    peaks = {name: done.peak for name, done in meter.counts.items()}
    encode = peaks.pop("encode")
    # The moments are there from the second step on; ``update`` has made them itself.
    step = max(peak + (0 if name == "update" else 2 * lora) for name, peak in peaks.items())
    counted = [done for name, done in meter.counts.items() if name in _STEP]
    return Footprint(
        work=work,
        weights=weights,
        text_encoders=text,
        step=weights + step,
        encode=weights + text + encode,
        streamed=weights + (text + encode if family.texts.streamed else streaming),
        # Beside the LoRA itself its gradient and both moments.
        held=held + 3 * lora,
        flops=_flops(meter, family.preset.optimizer.timestep, len(family.schedule(spec.image))),
        launches=sum(done.launches for done in counted),
        moved=sum(done.moved for done in counted),
    )


def _step(training: Training, meter: Meter) -> int:
    """Bytes that live while a VLM answers."""
    made = training.forward(0, 0)
    held = meter.live
    meter.phase = "compare"
    anchor = training.compare(made)
    meter.phase = "decoder backward"
    gradient = torch.ones(made.images.shape, dtype=made.images.dtype)
    training.backward(made.images, gradient, anchor, [1.0] * len(gradient))
    del made, anchor
    meter.phase = "update"
    training.update()
    return held


@contextmanager
def _phases(family: GeneratorFamily, meter: Meter) -> Iterator[None]:
    """The meter is told which part of a step begins."""
    denoise, decode = family.denoise, family.decode

    def denoised(
        latents: torch.Tensor, conditioning: Conditioning, schedule: Schedule, index: int
    ) -> torch.Tensor:
        if torch.is_grad_enabled():
            meter.phase = "denoiser"
        elif meter.phase != "compare":
            meter.phase = "sample"
        return denoise(latents, conditioning, schedule, index)

    def decoded(x0: torch.Tensor, image: pb.ImageSpec) -> torch.Tensor:
        def at_x0() -> None:
            meter.phase = "denoiser backward"

        meter.phase = "decoder"
        return decode(marked(x0, at_x0) if x0.requires_grad else x0, image)

    family.denoise, family.decode = denoised, decoded  # type: ignore[method-assign]
    try:
        yield
    finally:
        del family.denoise, family.decode


def _flops(meter: Meter, timestep: str, steps: int) -> dict[str, int]:
    """Of a mean step; at random timesteps the sampler goes half of its way."""
    flops = {name: meter.counts[name].flops for name in _STEP if meter.counts[name].flops}
    once = meter.counts["sample"].flops
    passes = {"first": 0.0, "random": (steps - 1) / 2, "last": steps - 1.0}[timestep]
    return {"sample": int(once * passes), **flops}


def _spec(family: GeneratorFamily, work: Work) -> pb.OptimizeSpec:
    preset = family.preset
    image = usual_image(preset)
    image.width = image.height = work.size
    steps = len(family.schedule(image))
    optimizer = pb.OptimizerSpec(
        steps=2,
        batch=work.batch,
        accumulate=1,
        lr=preset.optimizer.lr,
        max_grad_norm=preset.optimizer.max_grad_norm,
        noise_seeds=2,
        timestep=pb.TIMESTEP_RANDOM,
    )
    # One step of the sampler at most: the others are like it.
    wanted = min(1, steps - 1)
    optimizer.seed = next(
        seed for seed in count() if _first_index(optimizer, seed, steps) == wanted
    )
    return pb.OptimizeSpec(
        prompts=[_PROMPT],
        image=image,
        lora=pb.LoraSpec(
            rank=preset.lora.rank,
            alpha=preset.lora.alpha,
            weight=preset.lora.weight,
            target_modules=preset.lora.target_modules,
            init=pb.LORA_INIT_KAIMING,
        ),
        optimizer=optimizer,
        guard=pb.GuardSpec(anchor=preset.guard.anchor),
    )


def _first_index(optimizer: pb.OptimizerSpec, seed: int, steps: int) -> int:
    optimizer.seed = seed
    return draws.timestep_index(optimizer, 0, 0, steps)
