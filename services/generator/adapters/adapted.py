"""Layers of a denoiser with room for LoRAs. A layer that has none on computes as the base layer."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from services.generator.adapters.low_rank import LowRank, add_conv, add_linear


class Adapted(torch.nn.Module):
    """``base_layer`` plus the LoRAs that are on.

    They are no parameters of the module: what a denoiser has and saves is the base model's. A
    compiled layer depends on their shapes, not on whose they are.
    """

    def __init__(self, base_layer: torch.nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.on: tuple[LowRank, ...] = ()

    def put_on(self, loras: tuple[LowRank, ...]) -> None:
        """From now on the layer computes with these, and no other."""
        self.on = loras

    def new_lora(self, rank: int, scale: torch.Tensor, dtype: torch.dtype) -> LowRank:
        """A LoRA of zeros that fits this layer, for inputs of ``dtype``."""
        A, B = (scale.new_zeros(shape) for shape in self.shapes(rank))
        if dtype == torch.float32:
            return LowRank(A, B, scale, A, B)
        return LowRank(A, B, scale, A.to(dtype), B.to(dtype))

    def shapes(self, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Of A and B."""
        raise NotImplementedError

    # Models look at their layers' weights, for instance for the dtype.
    @property
    def weight(self) -> Any:
        return self.base_layer.weight

    @property
    def bias(self) -> Any:
        return self.base_layer.bias


class AdaptedLinear(Adapted):
    """Around an ``nn.Linear`` or a subclass, of whose weight nothing is assumed."""

    base_layer: torch.nn.Linear

    def __init__(self, base_layer: torch.nn.Linear) -> None:
        super().__init__(base_layer)
        # Others might return what they still need.
        self._is_fresh = type(base_layer) is torch.nn.Linear

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.base_layer(x)
        for lora in self.on:
            y = add_linear(y, x, lora, in_place=self._is_fresh)
        return y

    def shapes(self, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        layer = self.base_layer
        return (rank, layer.in_features), (layer.out_features, rank)


class AdaptedConv2d(Adapted):
    base_layer: torch.nn.Conv2d

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.base_layer(x)
        for lora in self.on:
            y = add_conv(y, x, lora, self._convolved)
        return y

    def _convolved(self, x: torch.Tensor, A: torch.Tensor) -> torch.Tensor:
        layer = self.base_layer
        return functional.conv2d(x, A, stride=layer.stride, padding=layer.padding)

    def shapes(self, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        layer = self.base_layer
        return (rank, layer.in_channels, *layer.kernel_size), (layer.out_channels, rank, 1, 1)


def adapted(layer: torch.nn.Module) -> Adapted:
    """The layer with room for LoRAs. ``TypeError`` for a kind that can't have any."""
    if isinstance(layer, torch.nn.Linear):
        return AdaptedLinear(layer)
    if isinstance(layer, torch.nn.Conv2d):
        return AdaptedConv2d(layer)
    raise TypeError(f"a LoRA is for linear and convolution layers, not {type(layer).__name__}")
