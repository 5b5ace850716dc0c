"""Sana and Sana Sprint: diffusers' names only."""

from __future__ import annotations

from services.common.lora_layouts.layers import Layout, each

LAYOUTS: tuple[Layout, ...] = ()
_TIMES = ("timestep_", "emb.timestep_", "guidance_")
MODULES = (
    *each(
        "transformer_blocks",
        64,
        [
            *(f"attn{n}.{to}" for n in (1, 2) for to in ("to_q", "to_k", "to_v", "to_out.0")),
            "ff.conv_inverted",
            "ff.conv_point",
        ],
    ),
    "patch_embed.proj",
    *(
        f"time_embed.{layer}"
        for layer in (
            "linear",
            *(f"{place}embedder.linear_{n}" for place in _TIMES for n in (1, 2)),
        )
    ),
    "caption_projection.linear_1",
    "caption_projection.linear_2",
    "proj_out",
)
