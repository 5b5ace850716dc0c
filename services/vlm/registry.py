"""The class of each preset's family. A family's libraries are loaded when it is first used."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

import torch

from services.common.errors import StartError
from services.common.memory import MemoryChoice
from services.common.presets import PresetError, VlmPreset
from services.common.quantize import check_quantize
from services.vlm import memory as levels
from services.vlm.families.base import VlmFamily

_FAMILIES = {
    "gemma3": "services.vlm.families.gemma3:Gemma3",
    "idefics2": "services.vlm.families.idefics2:Idefics2",
    "llava": "services.vlm.families.llava:Llava",
    "pixtral": "services.vlm.families.pixtral:Pixtral",
    "qwen2.5-vl": "services.vlm.families.qwen2_5_vl:Qwen2_5Vl",
    "qwen3-vl": "services.vlm.families.qwen3_vl:Qwen3Vl",
    "smolvlm": "services.vlm.families.smolvlm:SmolVlm",
}


def load(
    preset: VlmPreset,
    device: torch.device,
    memory: MemoryChoice | None = None,
    others: Sequence[torch.device] = (),
) -> VlmFamily:
    """Loads the preset's VLM on ``device``, or spread over it and ``others``, at a level of
    ``memory``, or at the preset's.

    Raises ``PresetError`` for an unknown family and a level that VLMs don't have, ``StartError``
    for a model that can't be loaded, or not be spread over so many devices.
    """
    family = family_class(preset)
    check_quantize(preset)
    try:
        vlm = family.load(preset, device, others)
    # OSError for what can't be fetched or read; for some of it the libraries raise ValueError.
    except (OSError, ValueError) as error:
        raise StartError(f"{preset.model} can't be loaded: {error}") from error
    levels.apply(vlm, levels.choose(vlm, memory or preset.memory))
    return vlm


def family_class(preset: VlmPreset) -> type[VlmFamily]:
    """Raises ``PresetError`` for an unknown family."""
    if preset.family not in _FAMILIES:
        raise PresetError(
            f"preset {preset.name}: family {preset.family!r} is unknown: "
            f"choose one of {', '.join(_FAMILIES)}"
        )
    module, _, name = _FAMILIES[preset.family].partition(":")
    family: type[VlmFamily] = getattr(import_module(module), name)
    return family
