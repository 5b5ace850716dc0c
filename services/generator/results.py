"""The results of a job: pictures without and with its LoRA, its files, what it changed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import torch

from dualprocess.v1 import generator_pb2 as pb
from services.common.device import DeviceThread
from services.generator.blobs import pieces
from services.generator.collateral import collateral
from services.generator.sample import encode_png, side_by_side
from services.generator.training import Training


async def preview(
    device: DeviceThread, training: Training, spec: pb.OptimizeSpec, step: int
) -> pb.Preview:
    base = await device.run(training.draw, spec.eval.seed, with_lora=False)
    lora = await device.run(training.draw, spec.eval.seed, with_lora=True)
    png = await asyncio.to_thread(encode_png, side_by_side(base.pixels, lora.pixels))
    return pb.Preview(step=step, seed=spec.eval.seed, image=png)


async def results(
    device: DeviceThread, training: Training, spec: pb.OptimizeSpec
) -> AsyncIterator[pb.OptimizeResponse]:
    """The job's files in pieces: the LoRA, each evaluation seed without and with it; then what
    changed between the two."""
    for name, file in (await device.run(training.export)).items():
        for piece in pieces(name, file):
            yield pb.OptimizeResponse(artifact=piece)
    latents: dict[str, list[torch.Tensor]] = {"base": [], "lora": []}
    for seed in range(spec.eval.seed, spec.eval.seed + spec.eval.images):
        for kind, with_lora in (("base", False), ("lora", True)):
            drawn = await device.run(training.draw, seed, with_lora=with_lora)
            latents[kind].append(drawn.latents)
            png = await asyncio.to_thread(encode_png, drawn.pixels)
            for piece in pieces(f"{kind}-{seed}.png", png):
                yield pb.OptimizeResponse(artifact=piece)
    changed = await device.run(collateral, latents["lora"], latents["base"])
    yield pb.OptimizeResponse(collateral=changed)
