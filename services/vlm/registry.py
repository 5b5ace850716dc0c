"""Which class a preset's family is. A family's libraries load when it is first asked for."""

from __future__ import annotations

from importlib import import_module

import torch

from services.common.presets import PresetError, VlmPreset
from services.vlm.families.base import VlmFamily

_FAMILIES = {
    "idefics2": "services.vlm.families.idefics2:Idefics2",
}


def load(preset: VlmPreset, device: torch.device) -> VlmFamily:
    """Loads the preset's VLM on ``device``. Raises ``PresetError`` for an unknown family."""
    if preset.family not in _FAMILIES:
        raise PresetError(
            f"preset {preset.name}: family {preset.family!r} is unknown: "
            f"choose one of {', '.join(_FAMILIES)}"
        )
    module, _, name = _FAMILIES[preset.family].partition(":")
    family: type[VlmFamily] = getattr(import_module(module), name)
    return family.load(preset, device)
