"""Measures what a LoRA changed, whether asked for or not: how far its pictures are from the base
model's.

Everything here takes latents [batch, channels, height, width] in the autoencoder's normalised
scale, where two pictures that have nothing in common are about 1 apart, whatever the model.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch

from dualprocess.v1 import generator_pb2 as pb

#: Added to a square: keeps the slope of its root finite where nothing has changed yet.
_LEAST_SQUARE = 2.5e-4
#: The share of its weight that the anchor has whatever the answers.
_LEAST_SHARE = 0.03


def anchor(x0: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
    """How far each ``x0`` is from ``base``, as a loss: [batch], float32, attached to ``x0``.

    Mean of the absolute differences, as in the lasso (Tibshirani, 1996): a few places may change
    fully, and the others not at all. Each channel counts by itself: where the colour has to change,
    what the other channels hold, such as the width of an outline, is still kept.
    """
    square_BCHW = (x0.float() - base.float()).square()
    return (square_BCHW + _LEAST_SQUARE).sqrt().mean((1, 2, 3))


def anchor_share(right: float) -> float:
    """The share of its weight that an image's ``anchor`` has; ``right``: how probable its right
    answers are.

    An image whose answers are wrong is nearly free to change; once they are right, changes that the
    answers don't need are undone. The square: an answer that is not yet sure, like a murky colour,
    is not held back. The share is never 0: a change of all images at once, made while they are
    wrong, may please the VLM and would then be too large to be undone.
    """
    return _LEAST_SHARE + (1 - _LEAST_SHARE) * right**2


def collateral(lora: Sequence[torch.Tensor], base: Sequence[torch.Tensor]) -> pb.Collateral:
    """Drift and diversity of images by their latents [channels, height, width], in the same order.

    Diversity stays unset for less than two images, or where the base model's are all the same.
    """
    return collateral_of(distances(lora, base).tolist(), images=len(lora))


def distances(lora: Sequence[torch.Tensor], base: Sequence[torch.Tensor]) -> torch.Tensor:
    """The distances that ``collateral`` consists of, on the latents' device, float32 [n]: of each
    image from the base model's, then between any two of ``lora``, then of ``base``."""
    pairs = [
        *zip(lora, base, strict=True),
        *itertools.combinations(lora, 2),
        *itertools.combinations(base, 2),
    ]
    return torch.stack([_distance(*pair) for pair in pairs])


def collateral_of(distances: Sequence[float], *, images: int) -> pb.Collateral:
    """As ``collateral``, from the ``distances`` of that many images."""
    drifts, between = distances[:images], distances[images:]
    found = pb.Collateral(drift=sum(drifts) / images)
    half = len(between) // 2
    spread, base_spread = sum(between[:half]), sum(between[half:])
    if base_spread > 0:
        found.diversity = (spread / half) / (base_spread / half)
    return found


def mean_collateral(several: Sequence[pb.Collateral]) -> pb.Collateral:
    """Drift and diversity of two batches of the same size."""
    found = pb.Collateral(drift=sum(one.drift for one in several) / len(several))
    diversities = [one.diversity for one in several if one.HasField("diversity")]
    if diversities:
        found.diversity = sum(diversities) / len(diversities)
    return found


def _distance(left_CHW: torch.Tensor, right_CHW: torch.Tensor) -> torch.Tensor:
    return (left_CHW.float() - right_CHW.float()).square().mean(0).sqrt().mean()
