"""A LoRA from its file, in any layout that ``services.common.lora_layouts`` knows."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load

from services.common.errors import InvalidInput
from services.common.lora_layouts.families import check_family, layers_of
from services.common.lora_layouts.keys import LoraKeys, Part, lora_keys
from services.common.lora_layouts.layers import Layer, Layers
from services.generator.families.base import GeneratorFamily
from services.generator.lora.layers import Lora, adaptable
from services.generator.lora.safetensors_header import metadata


@dataclass(frozen=True)
class LoraFile:
    """``loras`` by the denoiser's module; ``left_out`` lists what was left out of the file;
    ``notes`` are sentences about that, and other warnings."""

    loras: Mapping[str, Lora]
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_lora(file: bytes, family: GeneratorFamily) -> LoraFile:
    """The LoRAs of the denoiser's modules.

    Wherever the file says its alpha (a tensor beside the matrices, or peft's configuration in the
    metadata), alpha / rank goes into B. Raises ``InvalidInput`` for a file that is broken, holds
    anything but LoRAs, or has no LoRA for this denoiser.
    """
    try:
        tensors = {key: tensor.float() for key, tensor in load(file).items()}
    except SafetensorError as error:
        raise InvalidInput(f"not a safetensors file: {error}") from error
    header = metadata(file)
    keys = lora_keys(tensors, header)
    layers = layers_of(family.name, adaptable(family.denoiser))
    check_family(keys, family.name, layers)
    config = _peft_config(header, family.lora_prefix)
    found = {
        name: _scaled(parts, tensors, config, layers[name])
        for name, parts in keys.layers.items()
        if name in layers
    }
    loras, repeated = _by_module(found, layers)
    for module, lora in loras.items():
        if not (lora.A.isfinite().all() and lora.B.isfinite().all()):
            raise InvalidInput(f"the weights of {module} are not finite")
    left_out = [*_strangers(keys, layers), *repeated]
    if keys.text_encoder_layers:
        left_out.append("text encoders")
    return LoraFile(loras, tuple(left_out), (*keys.notes, *_told(left_out, len(keys.layers))))


def _scaled(
    parts: Mapping[Part, str],
    tensors: Mapping[str, torch.Tensor],
    config: Mapping[str, Any],
    layer: Layer,
) -> Lora:
    lora = Lora(tensors[parts["A"]], tensors[parts["B"]])
    if lora.A.ndim < 2 or lora.B.ndim < 2 or lora.B.shape[1] != lora.rank or not lora.rank:
        raise InvalidInput(f"{parts['A']} and {parts['B']} don't fit together")
    if "alpha" in parts:
        alpha = tensors[parts["alpha"]]
        if alpha.numel() != 1:
            raise InvalidInput(f"{parts['alpha']} must be one number")
        scale = alpha.item() / lora.rank
    else:
        scale = _configured_scale(config, layer.modules[0], lora)
    return lora if scale == 1 else Lora(lora.A, lora.B * scale)


def _by_module(found: Mapping[str, Lora], layers: Layers) -> tuple[dict[str, Lora], list[str]]:
    """Also the fused layers that only repeat the LoRAs of their single modules."""
    loras: dict[str, Lora] = {}
    repeated = []
    for name in sorted(found, key=lambda name: len(layers[name].modules)):
        layer = layers[name]
        if len(layer.modules) > 1 and all(module in loras for module in layer.modules):
            repeated.append(name)
            continue
        for module, lora in _split(name, found[name], layer):
            if module in loras:
                raise InvalidInput(f"it has two LoRAs for {module}; send a file with one")
            loras[module] = lora
    return loras, repeated


def _split(name: str, lora: Lora, layer: Layer) -> Iterator[tuple[str, Lora]]:
    """The LoRAs of the layer's modules, as far as they have one."""
    count, total = len(layer.modules), sum(layer.shares)
    A, B = lora
    if layer.swapped:
        B = torch.cat(B.chunk(2)[::-1])
    if count == 1:
        yield layer.modules[0], Lora(A, B)
        return
    if B.ndim != 2 or len(B) % total:
        raise InvalidInput(f"{name}: {len(B)} rows of output don't fit {', '.join(layer.modules)}")
    parts = torch.split(B, [len(B) // total * share for share in layer.shares])
    rank = lora.rank // count
    own = [part[:, index * rank : (index + 1) * rank] for index, part in enumerate(parts)]
    if rank * count == lora.rank and torch.equal(_block_diagonal(own), B):
        # Each module has rows of A to itself.
        for module, of_A, of_B in zip(layer.modules, torch.split(A, rank), own, strict=True):
            if of_A.any() or of_B.any():
                yield module, Lora(of_A.clone(), of_B.contiguous().clone())
        return
    for module, part in zip(layer.modules, parts, strict=True):
        yield module, Lora(A.clone(), part.clone())


def _block_diagonal(blocks: list[torch.Tensor]) -> torch.Tensor:
    matrix: torch.Tensor = torch.block_diag(*blocks)  # type: ignore[no-untyped-call]
    return matrix


def _strangers(keys: LoraKeys, layers: Layers) -> list[str]:
    return [name for name in keys.layers if name not in layers]


def _told(left_out: list[str], total: int) -> Iterator[str]:
    names = [name for name in left_out if name != "text encoders"]
    if names:
        yield (
            f"{len(names)} of its {total} layers don't exist in this model, or repeat others: "
            f"they are left out ({', '.join(names[:3])}{', …' if names[3:] else ''})"
        )


def _peft_config(header: Mapping[str, str], prefix: str) -> dict[str, Any]:
    """diffusers' ``lora_adapter_metadata``: the arguments of peft's ``LoraConfig``."""
    try:
        config = json.loads(header.get("lora_adapter_metadata", "{}"))
        return {
            key.removeprefix(f"{prefix}."): value
            for key, value in config.items()
            if key.startswith(f"{prefix}.")
        }
    except (ValueError, AttributeError) as error:
        raise InvalidInput(f"the metadata lora_adapter_metadata can't be read: {error}") from error


def _configured_scale(config: Mapping[str, Any], module: str, lora: Lora) -> float:
    """alpha / rank of a module (peft's ``LoraLayer.update_layer``); 1 without a configuration."""
    if "lora_alpha" not in config:
        return 1.0
    try:
        patterns = dict(config.get("alpha_pattern") or {})
        named = (alpha for key, alpha in patterns.items() if re.match(rf"(.*\.)?({key})$", module))
        alpha = float(next(named, config["lora_alpha"]))
    except (TypeError, ValueError, re.error) as error:
        raise InvalidInput(f"the metadata lora_adapter_metadata can't be read: {error}") from error
    return alpha / (math.sqrt(lora.rank) if config.get("use_rslora") else lora.rank)
