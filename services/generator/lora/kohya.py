"""LoRA files as kohya's sd-scripts and OneTrainer write them, for ComfyUI: a layer's name with
underscores, then ``lora_down.weight``, ``lora_up.weight`` and ``alpha``.

Every module has a name of its own: those of the original FLUX.1, where query, key and value are
one, would need matrices of three times the rank, two thirds of them zeros.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

Tensors = Mapping[str, torch.Tensor]

#: FLUX.1's last modulation, whose halves the original code has in another order: readers differ.
_NAMELESS = ("norm_out.linear",)


def to_kohya(tensors: Tensors, prefix: str, kohya_prefix: str) -> dict[str, torch.Tensor] | None:
    """From the diffusers layout, ``prefix`` being ``unet`` or ``transformer``. Dtypes stay.

    ``None`` where a module has no such name.
    """
    converted: dict[str, torch.Tensor] = {}
    for key, lora_A in tensors.items():
        module, half, _ = key.removeprefix(f"{prefix}.").partition(".lora_A.weight")
        if not half:
            continue
        if module in _NAMELESS:
            return None
        name = f"{kohya_prefix}_{module.replace('.', '_')}"
        converted[f"{name}.lora_down.weight"] = lora_A
        converted[f"{name}.lora_up.weight"] = tensors[f"{prefix}.{module}.lora_B.weight"]
        converted[f"{name}.alpha"] = torch.tensor(float(len(lora_A)))
    return converted
