"""Which class a preset's family is. A family's libraries load when it is first asked for."""

from __future__ import annotations

from importlib import import_module

import torch

from services.common.errors import StartError
from services.common.presets import GeneratorPreset, PresetError
from services.generator.families.base import GeneratorFamily

_FAMILIES = {
    "flux": "services.generator.families.flux:Flux",
    "stable_diffusion": "services.generator.families.stable_diffusion:StableDiffusion",
    "sdxl": "services.generator.families.sdxl:StableDiffusionXL",
    "flux2": "services.generator.families.flux2:Flux2",
    "z_image": "services.generator.families.z_image:ZImage",
    "sana": "services.generator.families.sana:Sana",
    "sana_sprint": "services.generator.families.sana_sprint:SanaSprint",
}


def load(preset: GeneratorPreset, device: torch.device) -> GeneratorFamily:
    """Loads the preset's generator on ``device``.

    Raises ``PresetError`` for an unknown family, ``StartError`` for a model that can't be had.
    """
    if preset.family not in _FAMILIES:
        raise PresetError(
            f"preset {preset.name}: family {preset.family!r} is unknown: "
            f"choose one of {', '.join(_FAMILIES)}"
        )
    module, _, name = _FAMILIES[preset.family].partition(":")
    family: type[GeneratorFamily] = getattr(import_module(module), name)
    try:
        return family.load(preset, device)
    # OSError for what can't be fetched or read; for some of it the libraries say ValueError.
    except (OSError, ValueError) as error:
        raise StartError(f"{preset.model} can't be loaded: {error}") from error
