"""From an image to ``pixel_values``, differentiably, as the model's own image processor does it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import torch
from torch.nn.functional import interpolate

from services.vlm.transfer import upload


@dataclass(frozen=True)
class Normalization:
    """A processor's normalisation of values in [0, 1], for each channel: (y - mean) / std."""

    mean: Sequence[float]
    std: Sequence[float]

    def __call__(self, unit_BCHW: torch.Tensor) -> torch.Tensor:
        mean, std = (
            upload(torch.tensor(each, dtype=unit_BCHW.dtype), unit_BCHW.device).view(1, -1, 1, 1)
            for each in (self.mean, self.std)
        )
        return (unit_BCHW - mean) / std


def resize(
    unit_BCHW: torch.Tensor, size: tuple[int, int], mode: Literal["bilinear", "bicubic", "lanczos"]
) -> torch.Tensor:
    """Images in [0, 1] at ``size`` = (height, width), antialiased as PIL does it.

    Differs from PIL by its 8-bit rounding after each pass. An overshoot is clamped.
    """
    if unit_BCHW.shape[-2:] == size:
        return unit_BCHW
    if mode == "lanczos":
        return _resize_lanczos(unit_BCHW, size)
    return clamp(interpolate(unit_BCHW, size, mode=mode, antialias=True), 0.0, 1.0)


def _resize_lanczos(unit_BCHW: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """torch has no Lanczos: a matrix for each axis, the horizontal one first, as PIL."""
    height, width = size
    across, down = (
        upload(weights.to(unit_BCHW.dtype), unit_BCHW.device)
        for weights in (
            _lanczos_weights(unit_BCHW.shape[-1], width),
            _lanczos_weights(unit_BCHW.shape[-2], height),
        )
    )
    resized_across = clamp(unit_BCHW @ across.T, 0.0, 1.0)
    return clamp(down @ resized_across, 0.0, 1.0)


@lru_cache(maxsize=16)
def _lanczos_weights(length: int, target: int) -> torch.Tensor:
    """[target, length]: sinc(x) sinc(x / 3) on a support of 3, widened when it shrinks; each row
    sums to one."""
    scale = length / target
    widened = max(scale, 1.0)
    centers = (torch.arange(target, dtype=torch.float64) + 0.5) * scale
    places = torch.arange(length, dtype=torch.float64) + 0.5
    x = (places[None] - centers[:, None]) / widened
    weights = torch.where(x.abs() < 3, torch.sinc(x) * torch.sinc(x / 3), 0.0)
    return weights / weights.sum(dim=1, keepdim=True)


def clamp(values: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """``values`` clamped to [low, high]; a value outside keeps the gradient that pulls it back.

    A plain clamp gives values outside no gradient at all, so a saturated pixel could never
    recover. Here descent may move it towards the range, and may not push it further out.
    """
    clamped: torch.Tensor = _Clamp.apply(values, low, high)  # type: ignore[no-untyped-call]
    return clamped


class _Clamp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, low: float, high: float) -> torch.Tensor:
        ctx.save_for_backward(values > high, values < low)
        return values.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        above, below = ctx.saved_tensors
        (gradient,) = gradients
        outward = (above & (gradient < 0)) | (below & (gradient > 0))
        return gradient.masked_fill(outward, 0.0), None, None
