"""LoRA files of kohya's sd-scripts and ComfyUI ⇄ the diffusers layout, tensors by key.

diffusers: ``<prefix>.<module>.lora_A.weight`` [rank, in, …] and ``….lora_B.weight`` [out, rank, …]
with y = B(A(x)): alpha equals rank. kohya: ``<layer>.lora_down.weight``, ``<layer>.lora_up.weight``
and ``<layer>.alpha`` [], with y = alpha / rank · up(down(x)), or just up(down(x)) without alpha.
Layers of ``kohya_names``. Source: ComfyUI's ``comfy/lora.py``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch

from services.common.errors import InvalidInput
from services.common.lora_layouts.kohya_names import Layer, Layers

Tensors = Mapping[str, torch.Tensor]

_DOWN, _UP, _ALPHA = "lora_down.weight", "lora_up.weight", "alpha"
_A, _B = "lora_A.weight", "lora_B.weight"


class _Lora(NamedTuple):
    down: torch.Tensor
    up: torch.Tensor


def to_kohya(tensors: Tensors, layers: Layers, prefix: str) -> dict[str, torch.Tensor]:
    """From the diffusers layout, ``prefix`` being ``unet`` or ``transformer``. Dtypes stay.

    ``from_kohya`` gives the same tensors back, bit for bit. Raises ``InvalidInput`` for keys that
    are no LoRA's, or of modules that have no such name.
    """
    loras = _by_module(tensors, prefix)
    names = {module: name for name, layer in layers.items() for module in layer.modules}
    if strangers := [module for module in loras if module not in names]:
        raise InvalidInput(f"the LoRA adapts {strangers[0]}: kohya's format has no name for it")
    converted: dict[str, torch.Tensor] = {}
    for name in dict.fromkeys(names[module] for module in loras):
        layer = layers[name]
        down, up = _fused([loras.get(module) for module in layer.modules], layer)
        converted[f"{name}.{_DOWN}"] = down
        converted[f"{name}.{_UP}"] = up
        converted[f"{name}.{_ALPHA}"] = torch.tensor(float(len(down)))
    return converted


def from_kohya(tensors: Tensors, layers: Layers, prefix: str) -> dict[str, torch.Tensor]:
    """To the diffusers layout; alpha / rank goes into ``lora_B``. Dtypes stay.

    Raises ``InvalidInput`` for keys that this model has no layer for, those of text encoders among
    them, for other kinds of adapters than LoRA, and for tensors that don't fit together.
    """
    parts: defaultdict[str, dict[str, torch.Tensor]] = defaultdict(dict)
    for key, tensor in tensors.items():
        name, _, kind = key.partition(".")
        if kind not in (_DOWN, _UP, _ALPHA):
            raise InvalidInput(f"{key} is no part of a LoRA in kohya's format")
        if name not in layers:
            raise InvalidInput(f"{key}: this model's denoiser has no such layer")
        parts[name][kind] = tensor
    converted: dict[str, torch.Tensor] = {}
    for name, found in parts.items():
        layer = layers[name]
        for module, lora in zip(layer.modules, _split(_scaled(name, found), layer), strict=True):
            if lora is not None:
                converted[f"{prefix}.{module}.{_A}"] = lora.down
                converted[f"{prefix}.{module}.{_B}"] = lora.up
    return converted


def _by_module(tensors: Tensors, prefix: str) -> dict[str, _Lora]:
    loras: dict[str, _Lora] = {}
    for key, tensor in tensors.items():
        module = key.removeprefix(f"{prefix}.").removesuffix(f".{_A}").removesuffix(f".{_B}")
        pair = (f"{prefix}.{module}.{_A}", f"{prefix}.{module}.{_B}")
        if key not in pair or not all(other in tensors for other in pair):
            raise InvalidInput(f"{key} is no half of a LoRA on the {prefix}")
        if key == pair[0]:
            loras[module] = _Lora(tensor, tensors[pair[1]])
    return loras


def _scaled(name: str, found: Tensors) -> _Lora:
    if _DOWN not in found or _UP not in found:
        raise InvalidInput(f"{name}: a LoRA has {_DOWN} and {_UP}")
    down, up = found[_DOWN], found[_UP]
    if down.ndim < 2 or up.ndim < 2 or not len(down) or len(down) != up.shape[1]:
        raise InvalidInput(f"{name}: {_DOWN} and {_UP} don't fit together")
    if _ALPHA in found and found[_ALPHA].numel() != 1:
        raise InvalidInput(f"{name}.{_ALPHA} must be one number")
    if _ALPHA in found and (scale := found[_ALPHA].item() / len(down)) != 1:
        up = (up.float() * scale).to(up.dtype)
    return _Lora(down, up)


def _fused(loras: Sequence[_Lora | None], layer: Layer) -> _Lora:
    """One LoRA that does what ``loras`` do, each for its rows of the output.

    Its ranks are theirs, one after the other. A module without a LoRA has zeros in both matrices:
    a trained LoRA never has, so ``_split`` knows it again.
    """
    present = [
        (lora, share) for lora, share in zip(loras, layer.shares, strict=True) if lora is not None
    ]
    first, share = present[0]
    if len(loras) == 1:
        return first
    if len({lora.down.shape for lora, _ in present}) > 1:
        raise InvalidInput(f"{', '.join(layer.modules)}: kohya's format wants one rank for them")
    rows = len(first.up) // share
    absent = torch.zeros_like(first.down)
    downs = [absent if lora is None else lora.down for lora in loras]
    ups = [
        first.up.new_zeros(rows * share, len(first.down)) if lora is None else lora.up
        for lora, share in zip(loras, layer.shares, strict=True)
    ]
    return _Lora(torch.cat(downs), _block_diagonal(ups))


def _split(lora: _Lora, layer: Layer) -> list[_Lora | None]:
    """The LoRA of each of the layer's modules, ``None`` for one that has none."""
    count, total = len(layer.modules), sum(layer.shares)
    if count == 1:
        return [lora]
    if lora.up.ndim != 2 or len(lora.up) % total:
        raise InvalidInput(f"{', '.join(layer.modules)}: {len(lora.up)} rows of output don't fit")
    ups = torch.split(lora.up, [len(lora.up) // total * share for share in layer.shares])
    rank = len(lora.down) // count
    own = [up[:, index * rank : (index + 1) * rank] for index, up in enumerate(ups)]
    if rank * count == len(lora.down) and torch.equal(_block_diagonal(own), lora.up):
        pairs = zip(torch.split(lora.down, rank), own, strict=True)
        loras = [_Lora(down.clone(), up.contiguous().clone()) for down, up in pairs]
        return [lora if lora.down.any() or lora.up.any() else None for lora in loras]
    # Trained on the fused matrix: all modules share ``lora_down``.
    return [_Lora(lora.down.clone(), up.clone()) for up in ups]


def _block_diagonal(blocks: Sequence[torch.Tensor]) -> torch.Tensor:
    matrix: torch.Tensor = torch.block_diag(*blocks)  # type: ignore[no-untyped-call]
    return matrix
