"""Whether models fit on a card at their usual work. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence

from services.common.footprint import recorded
from services.common.footprint.card import GIB, needed, usable
from services.common.footprint.choice import together
from services.common.footprint.footprint import Footprint
from services.common.footprint.spread import over
from services.common.presets import AnyPreset, GeneratorPreset

#: A VLM learns only from calls what it is asked; this is what many ask.
SIZE, QUESTIONS = 512, 5


def usual(preset: AnyPreset) -> list[Footprint]:
    """The recorded footprints of a preset for images and batch as it has them, of a VLM for five
    questions about an image of 512 pixels, at every setting; none where they aren't recorded."""
    if not isinstance(preset, GeneratorPreset):
        size = SIZE if preset.is_on_hub else max(recorded.sizes(preset))
        return recorded.settings(preset, size, 1, QUESTIONS)
    size = max(preset.image.width, preset.image.height)
    return recorded.settings(preset, size, preset.optimizer.batch, 0)


def allowed(preset: AnyPreset) -> list[Footprint]:
    """Those that the preset's own choice of memory and quantisation leaves."""
    codes = "int8" if preset.quantize == "float8" else preset.quantize
    return [
        one
        for one in usual(preset)
        if one.work.quantize == codes and preset.memory in ("auto", one.work.level)
    ]


def too_small(presets: Sequence[AnyPreset], gib: float, cards: int = 1) -> str:
    """A sentence's end if a card of ``gib`` has too little for all of these together, with the
    settings that would do; empty if it has enough, or nobody knows. Over several ``cards`` they are
    spread."""
    names = " and ".join(preset.name for preset in presets)
    of_each = " of each" if cards > 1 else ""
    least = [min(map(_peak, over(allowed(preset), cards)), default=None) for preset in presets]
    known = [peak for peak in least if peak is not None]
    if len(known) < len(presets):
        weights = sum(preset.weights_gib for preset in presets) / cards
        said = f"the weights of {names} alone take {weights:.0f} GiB{of_each}"
        return said if weights > gib else ""
    need = sum(map(needed, known))
    if need <= usable(gib):
        return ""
    found = together([over(usual(preset), cards) for preset in presets], usable(gib))
    said = f"{names} need{'s' if len(presets) == 1 else ''} {need / GIB:.1f} GiB{of_each}"
    if found is None:
        return f"{said}; use a larger one, or smaller models"
    told = ", ".join(f"{one.work.preset} with {_set(one)}" for one in found)
    return f"{said}; what would fit is {told}"


def _set(footprint: Footprint) -> str:
    work = footprint.work
    quantized = f", quantize {work.quantize}" if work.quantize else ""
    return f"memory {work.level}{quantized}"


def _peak(footprint: Footprint) -> int:
    return footprint.peak
