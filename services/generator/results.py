"""What a job shows of itself: pictures without and with its LoRA, and its files."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from dualprocess.v1 import generator_pb2 as pb
from services.common.device import DeviceThread
from services.generator.sample import encode_png, side_by_side
from services.generator.training import Training


async def preview(
    device: DeviceThread, training: Training, spec: pb.OptimizeSpec, step: int
) -> pb.Preview:
    base = await device.run(training.render, spec.eval.seed, with_lora=False)
    lora = await device.run(training.render, spec.eval.seed, with_lora=True)
    png = await asyncio.to_thread(encode_png, side_by_side(base, lora))
    return pb.Preview(step=step, seed=spec.eval.seed, image=png)


async def results(
    device: DeviceThread, training: Training, spec: pb.OptimizeSpec
) -> AsyncIterator[tuple[str, bytes]]:
    """The job's files by name: the LoRA, and each evaluation seed without and with it."""
    for name, file in (await device.run(training.export)).items():
        yield name, file
    for seed in range(spec.eval.seed, spec.eval.seed + spec.eval.images):
        for kind, with_lora in (("base", False), ("lora", True)):
            pixels = await device.run(training.render, seed, with_lora=with_lora)
            yield f"{kind}-{seed}.png", await asyncio.to_thread(encode_png, pixels)
