"""FLUX.2. Source: diffusers' ``lora_conversion_utils``."""

from __future__ import annotations

from collections.abc import Collection

from services.common.lora_layouts import flux
from services.common.lora_layouts.layers import Layer, Layers, blocks, each, held, outer

_DOUBLE = {
    **flux.ATTENTION,
    "img_mlp.0": Layer(("ff.linear_in",)),
    "img_mlp.2": Layer(("ff.linear_out",)),
    "txt_mlp.0": Layer(("ff_context.linear_in",)),
    "txt_mlp.2": Layer(("ff_context.linear_out",)),
}
_SINGLE = {
    "linear1": Layer(("attn.to_qkv_mlp_proj",)),
    "linear2": Layer(("attn.to_out",)),
}
_OUTER = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "time_in.in_layer": "time_guidance_embed.timestep_embedder.linear_1",
    "time_in.out_layer": "time_guidance_embed.timestep_embedder.linear_2",
    "guidance_in.in_layer": "time_guidance_embed.guidance_embedder.linear_1",
    "guidance_in.out_layer": "time_guidance_embed.guidance_embedder.linear_2",
    "final_layer.linear": "proj_out",
    # Its halves are in diffusers' order, since diffusers reads it so.
    "final_layer.adaLN_modulation.1": "norm_out.linear",
    "single_stream_modulation.lin": "single_stream_modulation.linear",
    "double_stream_modulation_img.lin": "double_stream_modulation_img.linear",
    "double_stream_modulation_txt.lin": "double_stream_modulation_txt.linear",
}


def original(modules: Collection[str]) -> Layers:
    """Names of the original code, which ai-toolkit and kohya's scripts use."""
    return {
        **blocks("double_blocks", "transformer_blocks", _DOUBLE, modules),
        **blocks("single_blocks", "single_transformer_blocks", _SINGLE, modules),
        **outer(_OUTER, modules),
    }


def cut(modules: Collection[str]) -> Layers:
    """diffusers' names without their first letters, as some exports have them."""
    name = "transformer_blocks."
    return {
        module.removeprefix("tran"): Layer((module,))
        for module in modules
        if module.startswith(name)
    }


LAYOUTS = (original, cut)
MODULES = (
    *each("transformer_blocks", 64, held(_DOUBLE)),
    *each("single_transformer_blocks", 64, held(_SINGLE)),
    *_OUTER.values(),
)
