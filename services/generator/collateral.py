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

#: Added to a position's mean square: keeps the root's slope finite where nothing has changed yet.
_LEAST_SQUARE = 2.5e-4


def anchor(x0: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
    """How far each ``x0`` is from ``base``, as a loss: [batch], float32, attached to ``x0``.

    Mean over positions of the root mean square over channels. The root at each position, as in the
    group lasso (Yuan and Lin, 2006), lets a few places change fully and the others not at all.
    """
    square_BHW = (x0.float() - base.float()).square().mean(1)
    return (square_BHW + _LEAST_SQUARE).sqrt().mean((1, 2))


def collateral(lora: Sequence[torch.Tensor], base: Sequence[torch.Tensor]) -> pb.Collateral:
    """Drift and diversity of images by their latents [channels, height, width], in the same order.

    Diversity stays unset for less than two images, or where the base model's are all the same.
    """
    drifts = [_distance(*both) for both in zip(lora, base, strict=True)]
    found = pb.Collateral(drift=sum(drifts) / len(drifts))
    spread = _spread(base)
    if spread > 0:
        found.diversity = _spread(lora) / spread
    return found


def mean_collateral(several: Sequence[pb.Collateral]) -> pb.Collateral:
    """Drift and diversity of two batches of the same size."""
    found = pb.Collateral(drift=sum(one.drift for one in several) / len(several))
    diversities = [one.diversity for one in several if one.HasField("diversity")]
    if diversities:
        found.diversity = sum(diversities) / len(diversities)
    return found


def _spread(latents: Sequence[torch.Tensor]) -> float:
    """Mean distance between two images of the batch; 0 for fewer than two."""
    pairs = [_distance(*pair) for pair in itertools.combinations(latents, 2)]
    return sum(pairs) / len(pairs) if pairs else 0.0


def _distance(left_CHW: torch.Tensor, right_CHW: torch.Tensor) -> float:
    return float((left_CHW.float() - right_CHW.float()).square().mean(0).sqrt().mean())
