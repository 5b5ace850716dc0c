"""A LoRA that was trained elsewhere, from its file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from peft.utils.other import get_pattern_key
from safetensors import SafetensorError
from safetensors.torch import load

from services.common.errors import InvalidInput
from services.generator.families.base import GeneratorFamily
from services.generator.lora.kohya import Tensors, from_kohya
from services.generator.lora.safetensors_header import metadata

_A, _B, _ALPHA = ".lora_A.weight", ".lora_B.weight", ".alpha"
_KOHYA = (".lora_down.weight", ".lora_up.weight")


class Lora(NamedTuple):
    """Of one layer, y = B(A(x)): A [rank, in, …] and B [out, rank, …], float32, on the CPU."""

    A: torch.Tensor
    B: torch.Tensor

    @property
    def rank(self) -> int:
        return len(self.A)


def read_lora(file: bytes, family: GeneratorFamily) -> dict[str, Lora]:
    """The LoRA of each module of the denoiser, by the module's name, from either layout.

    Wherever the file says its alpha (a tensor beside the matrices, or peft's configuration in the
    metadata), alpha / rank goes into B. Raises ``InvalidInput`` for a file that is broken, or that
    holds anything but LoRAs of the denoiser.
    """
    try:
        tensors = {key: tensor.float() for key, tensor in load(file).items()}
    except SafetensorError as error:
        raise InvalidInput(f"not a safetensors file: {error}") from error
    if any(key.endswith(_KOHYA) for key in tensors):
        loras = _from_kohya(tensors, family)
    else:
        loras = _from_diffusers(tensors, metadata(file), family)
    if not loras:
        raise InvalidInput("the file holds no LoRA")
    for module, lora in loras.items():
        if not (lora.A.isfinite().all() and lora.B.isfinite().all()):
            raise InvalidInput(f"the weights of {module} are not finite")
    return loras


def _from_kohya(tensors: Tensors, family: GeneratorFamily) -> dict[str, Lora]:
    layers = family.kohya_layers()
    if layers is None:
        raise InvalidInput(
            f"kohya's layout has no names for a {type(family.denoiser).__name__}; "
            "send the diffusers layout"
        )
    return _pairs(from_kohya(tensors, layers, family.lora_prefix), family.lora_prefix)


def _from_diffusers(
    tensors: Tensors, header: Mapping[str, str], family: GeneratorFamily
) -> dict[str, Lora]:
    prefix = family.lora_prefix
    alphas = {key: _number(key, value) for key, value in tensors.items() if key.endswith(_ALPHA)}
    loras = _pairs({key: value for key, value in tensors.items() if key not in alphas}, prefix)
    config = _peft_config(header, prefix)
    scaled = {}
    for module, lora in loras.items():
        alpha = alphas.pop(f"{prefix}.{module}{_ALPHA}", None)
        scale = _configured_scale(config, module, lora) if alpha is None else alpha / lora.rank
        scaled[module] = lora if scale == 1 else Lora(lora.A, lora.B * scale)
    if alphas:
        raise InvalidInput(f"{next(iter(alphas))} belongs to no LoRA in the file")
    return scaled


def _number(key: str, tensor: torch.Tensor) -> float:
    if tensor.numel() != 1:
        raise InvalidInput(f"{key} must be one number")
    return tensor.item()


def _pairs(tensors: Tensors, prefix: str) -> dict[str, Lora]:
    keys = sorted(tensors)
    for key in keys:
        if not (key.startswith(f"{prefix}.") and key.endswith((_A, _B))):
            raise InvalidInput(
                f"{key} is no part of a LoRA on the {prefix}; leave everything else out of the file"
            )
    loras = {}
    for stem in dict.fromkeys(key.removesuffix(_A).removesuffix(_B) for key in keys):
        if f"{stem}{_A}" not in tensors or f"{stem}{_B}" not in tensors:
            raise InvalidInput(f"of {stem} it has one half; a LoRA has {_A[1:]} and {_B[1:]}")
        lora = Lora(tensors[f"{stem}{_A}"], tensors[f"{stem}{_B}"])
        if lora.A.ndim < 2 or lora.B.ndim < 2 or lora.B.shape[1] != lora.rank or not lora.rank:
            raise InvalidInput(f"{stem}{_A} and {stem}{_B} don't fit together")
        loras[stem.removeprefix(f"{prefix}.")] = lora
    return loras


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
        pattern = dict(config.get("alpha_pattern") or {})
        alpha = float(pattern.get(get_pattern_key(list(pattern), module), config["lora_alpha"]))
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"the metadata lora_adapter_metadata can't be read: {error}") from error
    return alpha / (math.sqrt(lora.rank) if config.get("use_rslora") else lora.rank)
