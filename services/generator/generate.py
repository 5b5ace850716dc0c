"""Images from a prompt and seeds, with no, one or several LoRAs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import numpy as np
from numpy.typing import NDArray

from dualprocess.v1 import generator_pb2 as pb
from services.common.device import DeviceThread
from services.generator.families.base import Conditioning, GeneratorFamily
from services.generator.lora.loaded import LoadedLoras
from services.generator.sample import encode_png, render


async def generate(
    family: GeneratorFamily,
    device: DeviceThread,
    spec: pb.GenerateSpec,
    files: Sequence[bytes],
    *,
    name: str,
) -> AsyncIterator[pb.GenerateResponse]:
    """Each seed with its PNG, the first one with what is to be known of the prompt and of the
    LoRAs. ``files`` are those of ``spec.loras``, in order.

    Between two images the device is free for others.
    """
    conditioning = await device.run(family.encode, spec.prompt, spec.image)
    warnings = await device.run(family.unread, [spec.prompt], spec.image)
    weights = [lora.weight for lora in spec.loras]
    async with device.opened(LoadedLoras, family, name, files, weights) as loras:
        warnings = [*warnings, *loras.notes]
        for seed in spec.seeds:
            pixels = await device.run(_render, family, conditioning, spec.image, seed, loras)
            png = await asyncio.to_thread(encode_png, pixels)
            yield pb.GenerateResponse(seed=seed, image=png, warnings=warnings)
            warnings = []


def _render(
    family: GeneratorFamily,
    conditioning: Conditioning,
    image: pb.ImageSpec,
    seed: int,
    loras: LoadedLoras,
) -> NDArray[np.uint8]:
    with loras.active():
        return render(family, conditioning, image, seed)
