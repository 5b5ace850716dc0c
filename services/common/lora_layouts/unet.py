"""Stable Diffusion and SDXL.

Layers have diffusers' names, or those of the original latent diffusion code, which kohya writes for
SDXL. Sources: ComfyUI's ``comfy/utils.py`` (``unet_to_diffusers``), diffusers'
``lora_conversion_utils``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from services.common.lora_layouts.layers import Layer, Layers, each

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
_PLACE = re.compile(r"(down|up)_blocks\.\d+\.\w+\.\d+")
_MIDDLE = re.compile(r"mid_block\.(resnets|attentions)\.(\d)\.(.+)")


def _original_names(modules: Collection[str]) -> Iterator[tuple[str, str]]:
    """(diffusers' name, original name) of every layer that a LoRA can adapt."""
    places = {match[0] for name in modules if (match := _PLACE.match(name))}
    resnets = sum(place.startswith("down_blocks.0.resnets.") for place in places)
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
            # The original code counts all resnets, down or up, in one sequence; a downsampler
            # counts as one, an upsampler belongs to the last resnet of its block.
            position = (resnets + 1) * int(block)
            if way == "down":
                place = f"input_blocks.{1 + position + int(index)}"
                below = f"input_blocks.{1 + position + resnets}.0.op"
            else:
                place = f"output_blocks.{position + int(index)}"
                attends = f"up_blocks.{block}.attentions.{resnets}" in places
                below = f"output_blocks.{position + resnets}.{1 + attends}.conv"
            if kind == "attentions":
                yield module, f"{place}.1.{rest}"
            elif kind == "resnets" and rest in _RESNET:
                yield module, f"{place}.0.{_RESNET[rest]}"
            elif kind in ("downsamplers", "upsamplers") and rest == "conv":
                yield module, below


def original(modules: Collection[str]) -> Layers:
    """Names of the latent diffusion code."""
    return {name: Layer((module,)) for module, name in _original_names(modules)}


_ATTENTION = (
    "proj_in",
    "proj_out",
    *each(
        "transformer_blocks",
        10,
        [
            *(f"attn{n}.{to}" for n in (1, 2) for to in ("to_q", "to_k", "to_v", "to_out.0")),
            "ff.net.0.proj",
            "ff.net.2",
        ],
    ),
)


def _block(name: str, resnets: int) -> Iterator[str]:
    yield from each(f"{name}.attentions", resnets, _ATTENTION)
    yield from each(f"{name}.resnets", resnets, _RESNET)


LAYOUTS = (original,)
MODULES = (
    *(name for block in range(4) for name in _block(f"down_blocks.{block}", 2)),
    *(name for block in range(4) for name in _block(f"up_blocks.{block}", 3)),
    *_block("mid_block", 2),
    *(f"down_blocks.{block}.downsamplers.0.conv" for block in range(4)),
    *(f"up_blocks.{block}.upsamplers.0.conv" for block in range(4)),
    *_OUTER,
)
