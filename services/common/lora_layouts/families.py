"""The families of generators, with the layouts of their LoRA files, and checks of a file that need
no model."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from services.common.errors import InvalidInput
from services.common.lora_layouts import flux, flux2, sana, unet, z_image
from services.common.lora_layouts.keys import LoraKeys, lora_keys
from services.common.lora_layouts.layers import Layer, Layers, Layout
from services.common.lora_layouts.targets import more_targets, unnamed


@dataclass(frozen=True)
class _Family:
    """``layouts`` without diffusers' own; ``modules`` are those of the largest model, and more."""

    layouts: tuple[Layout, ...]
    modules: tuple[str, ...]


_UNET = _Family(unet.LAYOUTS, unet.MODULES)
_SANA = _Family(sana.LAYOUTS, sana.MODULES)
_FAMILIES = {
    "flux": _Family(flux.LAYOUTS, flux.MODULES),
    "flux2": _Family(flux2.LAYOUTS, flux2.MODULES),
    "sana": _SANA,
    "sana_sprint": _SANA,
    "sdxl": _UNET,
    "stable_diffusion": _UNET,
    "z_image": _Family(z_image.LAYOUTS, z_image.MODULES),
}


def layers_of(family: str, modules: Collection[str]) -> Layers:
    """Every name that a file may have for a layer of the denoiser, whose adaptable modules are
    ``modules``. A family without layouts of its own has diffusers' names."""
    names: dict[str, Layer] = {}
    layouts = _FAMILIES[family].layouts if family in _FAMILIES else ()
    for layout in (*layouts, _shortened, _diffusers):
        found = layout(modules)
        names |= {name.replace(".", "_"): layer for name, layer in found.items()}
        names |= found
    return names


def _diffusers(modules: Collection[str]) -> Layers:
    return {module: Layer((module,)) for module in modules}


def _shortened(modules: Collection[str]) -> Layers:
    """What attention processors call the last projection: `to_out`."""
    ending = ".to_out.0"
    return {
        module.removesuffix(".0"): Layer((module,)) for module in modules if module.endswith(ending)
    }


@cache
def _usual_layers(family: str) -> Layers:
    return layers_of(family, _FAMILIES[family].modules)


def check_family(keys: LoraKeys, family: str, layers: Layers) -> None:
    """Raises ``InvalidInput`` if no layer of the file is one of ``layers``. The message names the
    family that the layers belong to."""
    if any(name in layers for name in keys.layers):
        return
    first = next(iter(keys.layers))
    message = f"none of its {len(keys.layers)} layers ({first[:100]}, …) is one of a {family}"
    others = [
        other
        for other in _FAMILIES
        if other != family
        and sum(name in _usual_layers(other) for name in keys.layers) > len(keys.layers) / 2
    ]
    if others:
        message += f"; they are those of {' or '.join(others)}: name a generator of that family"
    else:
        message += "; send a LoRA that was trained on this model"
    raise InvalidInput(message)


@dataclass(frozen=True)
class Examined:
    """What a file's header says. ``rank`` is the least that ``lora.rank`` must be, ``unnamed`` the
    modules that ``lora.target_modules`` doesn't name, as far as it can be known without the model,
    and ``targets`` what it must be for them."""

    notes: list[str]
    rank: int = 1
    unnamed: Sequence[str] = ()
    targets: str = ""


def examine(
    shapes: Mapping[str, Sequence[int]],
    metadata: Mapping[str, str],
    family: str,
    targets: Sequence[str],
) -> Examined:
    """Of a file with tensors of these shapes, for a job with these ``lora.target_modules``.

    Raises ``InvalidInput`` for a file that can't be such a job's start.
    """
    keys = lora_keys(shapes, metadata)
    if family not in _FAMILIES:
        return Examined(list(keys.notes))
    layers = _usual_layers(family)
    check_family(keys, family, layers)
    known = {name: layers[name] for name in keys.layers if name in layers}
    ranks = (
        math.ceil(next(iter(shapes[keys.layers[name]["A"]]), 1) / len(layer.modules))
        for name, layer in known.items()
    )
    missing = {name: unnamed(layer.modules, targets) for name, layer in known.items()}
    # A fused layer may change only some of its modules; only its tensors show which.
    certain = any(len(missing[name]) == len(layer.modules) for name, layer in known.items())
    named = [module for modules in missing.values() for module in modules] if certain else []
    named = list(dict.fromkeys(named))
    wanted = more_targets(named, targets, _FAMILIES[family].modules)
    return Examined(list(keys.notes), max(ranks, default=1), named, wanted)
