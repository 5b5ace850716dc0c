"""FLUX.1. Sources: diffusers' ``lora_conversion_utils``, ComfyUI's ``flux_to_diffusers``."""

from __future__ import annotations

from collections.abc import Collection

from services.common.lora_layouts.layers import Layer, Layers, blocks, each, fused, held, outer

_IMAGE = ("attn.to_q", "attn.to_k", "attn.to_v")
_TEXT = ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj")
#: Of a double-stream block.
ATTENTION = {
    "img_attn.qkv": fused(*_IMAGE),
    "txt_attn.qkv": fused(*_TEXT),
    "img_attn.proj": Layer(("attn.to_out.0",)),
    "txt_attn.proj": Layer(("attn.to_add_out",)),
}
_DOUBLE = {
    **ATTENTION,
    "img_mlp.0": Layer(("ff.net.0.proj",)),
    "img_mlp.2": Layer(("ff.net.2",)),
    "txt_mlp.0": Layer(("ff_context.net.0.proj",)),
    "txt_mlp.2": Layer(("ff_context.net.2",)),
    "img_mod.lin": Layer(("norm1.linear",)),
    "txt_mod.lin": Layer(("norm1_context.linear",)),
}
_SINGLE = {
    "linear1": fused(*_IMAGE, "proj_mlp", shares=(1, 1, 1, 4)),
    "linear2": Layer(("proj_out",)),
    "modulation.lin": Layer(("norm.linear",)),
}
_OUTER = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1",
    "time_in.out_layer": "time_text_embed.timestep_embedder.linear_2",
    "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
    "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
    "guidance_in.in_layer": "time_text_embed.guidance_embedder.linear_1",
    "guidance_in.out_layer": "time_text_embed.guidance_embedder.linear_2",
    "final_layer.linear": "proj_out",
}


def original(modules: Collection[str]) -> Layers:
    """Names of the original code, which kohya's sd-scripts and ComfyUI use."""
    last = Layer(("norm_out.linear",), swapped=True)
    return {
        **blocks("double_blocks", "transformer_blocks", _DOUBLE, modules),
        **blocks("single_blocks", "single_transformer_blocks", _SINGLE, modules),
        **outer(_OUTER, modules),
        **({"final_layer.adaLN_modulation.1": last} if "norm_out.linear" in modules else {}),
    }


_XLABS_DOUBLE = {
    "qkv1": fused(*_IMAGE),
    "qkv2": fused(*_TEXT),
    "proj1": Layer(("attn.to_out.0",)),
    "proj2": Layer(("attn.to_add_out",)),
}
_XLABS_SINGLE = {"qkv": fused(*_IMAGE), "proj": Layer(("proj_out",))}


def xlabs(modules: Collection[str]) -> Layers:
    """XLabs' processors: ``double_blocks.0.processor.qkv_lora1.down.weight``."""
    return {
        **blocks("double_blocks", "transformer_blocks", _XLABS_DOUBLE, modules),
        **blocks("single_blocks", "single_transformer_blocks", _XLABS_SINGLE, modules),
    }


LAYOUTS = (original, xlabs)
MODULES = (
    *each("transformer_blocks", 64, held(_DOUBLE)),
    *each("single_transformer_blocks", 64, held(_SINGLE)),
    *_OUTER.values(),
    "norm_out.linear",
)
