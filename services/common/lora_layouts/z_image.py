"""Z-Image. Sources: diffusers' ``lora_conversion_utils``, ComfyUI's ``z_image_to_diffusers``."""

from __future__ import annotations

from collections.abc import Collection

from services.common.lora_layouts.layers import Layer, Layers, blocks, each, fused, held, outer

_BLOCK = {
    "attention.qkv": fused("attention.to_q", "attention.to_k", "attention.to_v"),
    "attention.out": Layer(("attention.to_out.0",)),
}
_OUTER = {
    "x_embedder": "all_x_embedder.2-1",
    "final_layer.linear": "all_final_layer.2-1.linear",
    "final_layer.adaLN_modulation.1": "all_final_layer.2-1.adaLN_modulation.1",
}
_KINDS = ("layers", "noise_refiner", "context_refiner")


def original(modules: Collection[str]) -> Layers:
    """Names of the original code, in which query, key and value are one layer."""
    found = dict(outer(_OUTER, modules))
    for kind in _KINDS:
        found |= blocks(kind, kind, _BLOCK, modules)
    return found


_LAYERS = (
    *held(_BLOCK),
    *(f"feed_forward.w{number}" for number in (1, 2, 3)),
    "adaLN_modulation.0",
)

LAYOUTS = (original,)
MODULES = (
    *(name for kind in _KINDS for name in each(kind, 64, _LAYERS)),
    *_OUTER.values(),
    "cap_embedder.1",
    "t_embedder.mlp.0",
    "t_embedder.mlp.2",
)
