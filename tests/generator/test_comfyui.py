"""ComfyUI reads a LoRA of each family at full size, from the file that docs/using-a-lora.md names.

What it reads are the names in its maps from a LoRA's keys to its own weights (``comfy/lora.py`` and
``comfy/utils.py``), written here in our own words: a pattern for each kind of layer. Where it keeps
query, key and value in one matrix, each must fill a third of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import pytest
import torch

from services.common.presets import load_presets
from services.generator import architecture
from services.generator.lora.layers import adaptable

_FLUX_BLOCK = (
    r"transformer_blocks\.\d+\.(attn\.(to_(q|k|v|out\.0|add_out)|add_(q|k|v)_proj)"
    r"|ff(_context)?\.(net\.0\.proj|net\.2|linear_in|linear_out)|norm1(_context)?\.linear)"
)
_FLUX_SINGLE = (
    r"single_transformer_blocks\.\d+\.(attn\.(to_(q|k|v|out)|to_qkv_mlp_proj)"
    r"|proj_mlp|proj_out|norm\.linear)"
)
_FLUX_OUTER = (
    r"x_embedder|context_embedder|proj_out|norm_out\.linear"
    r"|time_text_embed\.(timestep|text|guidance)_embedder\.linear_[12]"
)
_Z_IMAGE_BLOCK = (
    r"(layers|context_refiner|noise_refiner)\.\d+\."
    r"(attention\.to_(q|k|v|out\.0)|feed_forward\.w[123]|adaLN_modulation\.0)"
)
_Z_IMAGE_OUTER = (
    r"all_final_layer\.2-1\.(linear|adaLN_modulation\.1)|all_x_embedder\.2-1"
    r"|cap_embedder\.1|t_embedder\.mlp\.[02]"
)


@dataclass(frozen=True)
class Reads:
    """``names``: the modules of `pytorch_lora_weights.safetensors` that ComfyUI knows, behind
    ``transformer.``; ``unread``: those that a LoRA may change and it doesn't know."""

    names: str
    thirds: str
    unread: frozenset[str] = frozenset()


FAMILIES: Mapping[str, Reads] = {
    "flux": Reads(f"{_FLUX_BLOCK}|{_FLUX_SINGLE}|{_FLUX_OUTER}", r"attn\.(to|add)_(q|k|v)"),
    "flux2": Reads(
        f"{_FLUX_BLOCK}|{_FLUX_SINGLE}|{_FLUX_OUTER}",
        r"attn\.(to|add)_(q|k|v)(_proj)?$",
        frozenset(
            {
                "double_stream_modulation_img.linear",
                "double_stream_modulation_txt.linear",
                "single_stream_modulation.linear",
                "time_guidance_embed.timestep_embedder.linear_1",
                "time_guidance_embed.timestep_embedder.linear_2",
            }
        ),
    ),
    "z_image": Reads(f"{_Z_IMAGE_BLOCK}|{_Z_IMAGE_OUTER}", r"attention\.to_(q|k|v)$"),
}
PRESETS = ("flux-schnell", "flux2-klein", "z-image-turbo")


@cache
def denoiser(name: str) -> torch.nn.Module:
    """In full size, without weights."""
    preset = load_presets().generator(name)
    transformer: torch.nn.Module = architecture.networks(preset, torch.device("meta"))[
        "transformer"
    ]
    return transformer


@pytest.mark.parametrize("name", PRESETS)
def test_comfyui_knows_every_layer_that_a_job_changes(name: str) -> None:
    preset = load_presets().generator(name)
    reads, targets = FAMILIES[preset.family], tuple(preset.lora.target_modules)
    modules = adaptable(denoiser(name))
    changed = [module for module in modules if module.endswith(targets)]
    assert len(changed) > 50
    assert [module for module in changed if not re.fullmatch(reads.names, module)] == []
    unread = {module for module in modules if not re.fullmatch(reads.names, module)}
    assert unread == reads.unread
    found = dict(denoiser(name).named_modules())
    for module in changed:
        if re.search(reads.thirds, module):
            assert found[module].out_features == found[module].in_features, module
