"""Writes LoRA files like those of others: one writer for each row of the table of layouts."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

import torch

from services.common.lora_layouts import flux, flux2, unet, z_image
from services.common.lora_layouts.layers import Layer, Layers
from services.generator.families.base import GeneratorFamily
from services.generator.lora.layers import adaptable, base_modules

Tensors = dict[str, torch.Tensor]
Naming = Callable[[Collection[str]], Layers]

RANK = 2


def own(modules: Collection[str]) -> Layers:
    return {module: Layer((module,)) for module in modules}


def _original(modules: Collection[str]) -> Layers:
    """The layers' names in the model's original code."""
    if "double_stream_modulation_img.linear" in modules:
        return flux2.original(modules)
    if any(name.startswith("single_transformer_blocks") for name in modules):
        return flux.original(modules)
    if any(name.startswith("noise_refiner") for name in modules):
        # diffusers' converter knows no other original names.
        known = z_image.original(modules)
        blocks = {name: layer for name, layer in known.items() if ".attention." in name}
        taken = {module for layer in blocks.values() for module in layer.modules}
        others = [name for name in modules if "feed_forward" in name and name not in taken]
        return {**blocks, **own(others)}
    return unet.original(modules)


def _kohya(modules: Collection[str]) -> Layers:
    return own(modules) if "conv_in" in modules else _original(modules)


@dataclass(frozen=True)
class Spelling:
    """How a file spells a tensor: ``prefix`` + the layer's name + an end. Without ``alpha`` no
    tensor says it."""

    naming: Naming = own
    prefix: str = ""
    ends: tuple[str, str] = (".lora_A.weight", ".lora_B.weight")
    alpha: float | None = None
    underscores: bool = False
    #: Changes made to a key in the end.
    rename: Callable[[str], str] = str

    def key(self, layer: str, end: str) -> str:
        name = layer.replace(".", "_") if self.underscores else layer
        return self.rename(f"{self.prefix}{name}{end}")


def _processors(key: str) -> str:
    """The names that diffusers used earlier for attention's layers."""
    return re.sub(r"\.(attn\d?)\.(to_\w+?)(\.0)?\.lora\.", r".\1.processor.\2_lora.", key)


def _xlabs(key: str) -> str:
    return re.sub(r"\.(qkv|proj)(\d?)\.", r".processor.\1_lora\2.", key)


_DOWN_UP = (".lora_down.weight", ".lora_up.weight")
_KOHYA = Spelling(_kohya, "lora_unet_", _DOWN_UP, alpha=1.0, underscores=True)
SPELLINGS: Mapping[str, Spelling] = {
    "diffusers": Spelling(prefix="PIPELINE."),
    "diffusers, before peft": Spelling(
        prefix="PIPELINE.",
        ends=(".lora.down.weight", ".lora.up.weight"),
        rename=_processors,
    ),
    "bare names": Spelling(),
    "peft's folders": Spelling(prefix="base_model.model."),
    "a named adapter": Spelling(
        prefix="PIPELINE.", ends=(".lora_A.default.weight", ".lora_B.default.weight")
    ),
    "kohya's sd-scripts": _KOHYA,
    "kohya's names for SDXL": replace(_KOHYA, naming=unet.original),
    "OneTrainer": replace(_KOHYA, naming=own, prefix="lora_transformer_"),
    "ai-toolkit, ComfyUI": Spelling(_original, "diffusion_model."),
    "XLabs": Spelling(flux.xlabs, ends=(".down.weight", ".up.weight"), rename=_xlabs),
}


def written(family: GeneratorFamily, spelling: Spelling, rank: int = RANK) -> Tensors:
    """A LoRA of random weights on every layer that the layout names."""
    generator = torch.Generator().manual_seed(0)
    modules = base_modules(family.denoiser)
    prefix = spelling.prefix.replace("PIPELINE", family.lora_prefix)
    spelling = replace(spelling, prefix=prefix)
    tensors: Tensors = {}
    for name, layer in spelling.naming(adaptable(family.denoiser)).items():
        weights = [modules[module].get_parameter("weight") for module in layer.modules]
        _, channels, *kernel = weights[0].shape
        rows = sum(len(weight) for weight in weights)
        down, up = spelling.ends
        tensors[spelling.key(name, down)] = torch.randn(
            rank, channels, *kernel, generator=generator
        )
        tensors[spelling.key(name, up)] = torch.randn(
            rows, rank, *([1] * len(kernel)), generator=generator
        )
        if spelling.alpha is not None:
            tensors[spelling.key(name, ".alpha")] = torch.tensor(spelling.alpha)
    return tensors
