"""Finished images: from a seed to the 8-bit picture that a user sees."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from dualprocess.v1 import generator_pb2 as pb
from services.generator.families.base import Conditioning, GeneratorFamily


@dataclass(frozen=True)
class Drawn:
    """``pixels`` [height, width, 3], and what they were decoded from: ``latents`` [channels, rows,
    columns] in the autoencoder's normalised scale, on the CPU."""

    pixels: NDArray[np.uint8]
    latents: torch.Tensor


def render(
    family: GeneratorFamily, conditioning: Conditioning, image: pb.ImageSpec, seed: int
) -> NDArray[np.uint8]:
    """One image [height, width, 3], made by ``draw``."""
    return draw(family, conditioning, image, seed).pixels


@torch.no_grad()
def draw(
    family: GeneratorFamily, conditioning: Conditioning, image: pb.ImageSpec, seed: int
) -> Drawn:
    """One image, with whatever adapters are active.

    The same pixels as the plain pipeline gives for a CPU generator with this seed.
    """
    schedule = family.schedule(image)
    latents = family.noise([seed], image)
    latents = family.sample(latents, conditioning, schedule, until=len(schedule))
    image_BCHW = family.decode(latents, image).float()
    unit_HWC = (image_BCHW / 2 + 0.5).clamp(0, 1)[0].permute(1, 2, 0)
    pixels = (unit_HWC * 255).round().to("cpu", torch.uint8).numpy()
    return Drawn(pixels, family.latent_map(latents, image)[0].cpu())


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG of [height, width, 3]."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def side_by_side(left: NDArray[np.uint8], right: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Two images of one size in one, the second to the right."""
    return np.concatenate([left, right], axis=1)
