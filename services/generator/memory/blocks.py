"""Which parts of the networks are computed again, by their classes in diffusers.

Small parts: the peak of a backward pass is what all of them keep, their inputs, and what the
largest of them makes.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet

import torch

DECODER_PARTS = frozenset(
    {
        # AutoencoderKL, AutoencoderKLFlux2
        "ResnetBlock2D",
        "Attention",
        "Upsample2D",
        # AutoencoderDC
        "ResBlock",
        "EfficientViTBlock",
        "DCUpBlock2d",
    }
)

DENOISER_PARTS = frozenset(
    {
        "FluxTransformerBlock",
        "FluxSingleTransformerBlock",
        "Flux2TransformerBlock",
        "Flux2SingleTransformerBlock",
        "ZImageTransformerBlock",
        "SanaTransformerBlock",
        # UNet2DConditionModel
        "ResnetBlock2D",
        "BasicTransformerBlock",
        "Upsample2D",
        "Downsample2D",
    }
)


def parts(network: torch.nn.Module, classes: AbstractSet[str]) -> list[torch.nn.Module]:
    """The modules of these classes, without those inside another of them."""
    found: list[torch.nn.Module] = []
    for child in network.children():
        found += [child] if type(child).__name__ in classes else parts(child, classes)
    return found
