"""What kohya's sd-scripts and ComfyUI call the layers of a denoiser.

A name is a prefix, then the layer's path with underscores for dots. Sources: ComfyUI's
``comfy/lora.py`` (which names it takes) and ``comfy/utils.py`` (``unet_to_diffusers``,
``flux_to_diffusers``: which layer is which).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Layer:
    """The modules of diffusers' denoiser that one layer holds, stacked along its output.

    ``shares`` says how the output's rows divide among them.
    """

    modules: tuple[str, ...]
    shares: tuple[int, ...] = (1,)


#: Layers by name. Where a module has several names, the last is the one to write.
Layers = Mapping[str, Layer]


def unet_layers(modules: Collection[str]) -> Layers:
    """Stable Diffusion and SDXL, from the names of the U-Net's modules.

    Layers have diffusers' names, or those of the original latent diffusion code, which kohya
    writes for SDXL. ComfyUI takes both.
    """
    original = {_kohya(name): Layer((module,)) for module, name in _original_names(modules)}
    return original | {_kohya(module): Layer((module,)) for module in modules}


_OUTER = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
_RESNET = {
    "conv1": "in_layers.2",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_BLOCK = re.compile(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.+)")
_MIDDLE = re.compile(r"mid_block\.(resnets|attentions)\.(\d)\.(.+)")


def _original_names(modules: Collection[str]) -> Iterator[tuple[str, str]]:
    """(diffusers' name, original name) of every layer that a LoRA can adapt."""
    known = frozenset(modules)
    resnets = sum(re.fullmatch(r"down_blocks\.0\.resnets\.\d+", name) is not None for name in known)
    for module in modules:
        if module in _OUTER:
            yield module, _OUTER[module]
        elif match := _MIDDLE.fullmatch(module):
            kind, index, rest = match.groups()
            if kind == "attentions":
                yield module, f"middle_block.1.{rest}"
            elif rest in _RESNET:
                yield module, f"middle_block.{2 * int(index)}.{_RESNET[rest]}"
        elif match := _BLOCK.fullmatch(module):
            way, block, kind, index, rest = match.groups()
            # The original numbers all resnets of one way through; a downsampler counts as one,
            # an upsampler belongs to the last resnet of its block.
            position = (resnets + 1) * int(block)
            if way == "down":
                place = f"input_blocks.{1 + position + int(index)}"
                below = f"input_blocks.{1 + position + resnets}.0.op"
            else:
                place = f"output_blocks.{position + int(index)}"
                attends = f"up_blocks.{block}.attentions.{resnets}" in known
                below = f"output_blocks.{position + resnets}.{1 + attends}.conv"
            if kind == "attentions":
                yield module, f"{place}.1.{rest}"
            elif kind == "resnets" and rest in _RESNET:
                yield module, f"{place}.0.{_RESNET[rest]}"
            elif kind in ("downsamplers", "upsamplers") and rest == "conv":
                yield module, below


_FLUX_OUTER = {
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
_FLUX_DOUBLE = {
    "img_attn.qkv": Layer(("attn.to_q", "attn.to_k", "attn.to_v"), (1, 1, 1)),
    "txt_attn.qkv": Layer(("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"), (1, 1, 1)),
    "img_attn.proj": Layer(("attn.to_out.0",)),
    "txt_attn.proj": Layer(("attn.to_add_out",)),
    "img_mlp.0": Layer(("ff.net.0.proj",)),
    "img_mlp.2": Layer(("ff.net.2",)),
    "txt_mlp.0": Layer(("ff_context.net.0.proj",)),
    "txt_mlp.2": Layer(("ff_context.net.2",)),
    "img_mod.lin": Layer(("norm1.linear",)),
    "txt_mod.lin": Layer(("norm1_context.linear",)),
}
_FLUX_SINGLE = {
    "linear1": Layer(("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"), (1, 1, 1, 4)),
    "linear2": Layer(("proj_out",)),
    "modulation.lin": Layer(("norm.linear",)),
}


def flux_layers(modules: Collection[str]) -> Layers:
    """FLUX.1, from the names of the transformer's modules.

    Layers have the original code's names, where query, key and value are one, or OneTrainer's:
    diffusers' own behind ``lora_transformer``. ComfyUI takes both. The last modulation
    (``norm_out``) is in neither: the two codes order its halves differently.
    """
    known = frozenset(modules)
    onetrainer = {
        _kohya(module, "lora_transformer"): Layer((module,))
        for module in modules
        if module != "norm_out.linear"
    }
    outer = {
        _kohya(name): Layer((module,)) for name, module in _FLUX_OUTER.items() if module in known
    }
    return (
        onetrainer
        | outer
        | _blocks("double_blocks", "transformer_blocks", _FLUX_DOUBLE, known)
        | _blocks("single_blocks", "single_transformer_blocks", _FLUX_SINGLE, known)
    )


def _blocks(
    original: str, diffusers: str, layers: Layers, modules: frozenset[str]
) -> dict[str, Layer]:
    count = sum(re.fullmatch(rf"{diffusers}\.\d+", module) is not None for module in modules)
    return {
        _kohya(f"{original}.{block}.{name}"): Layer(
            tuple(f"{diffusers}.{block}.{module}" for module in layer.modules), layer.shares
        )
        for block in range(count)
        for name, layer in layers.items()
    }


def _kohya(path: str, prefix: str = "lora_unet") -> str:
    return f"{prefix}_{path.replace('.', '_')}"
