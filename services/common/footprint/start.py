"""At which level of memory a model starts: the fastest that its card has room for, decided before
anything is loaded. Needs no torch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence

from services.common.errors import StartError
from services.common.footprint.card import CONTEXT, GIB, needed
from services.common.footprint.choice import fastest, order, remedy
from services.common.footprint.footprint import Footprint
from services.common.footprint.usual import usual
from services.common.memory import MemoryChoice, MemoryLevel, Quantization
from services.common.presets import AnyPreset, PresetError

log = logging.getLogger(__name__)


def chosen(
    preset: AnyPreset,
    choice: MemoryChoice,
    room: int | None,
    count: Callable[[], Iterable[Footprint]],
) -> MemoryChoice:
    """The fastest level for the preset's usual work in ``room``; ``choice`` itself where a device
    does not say what it has. ``count`` counts the footprints of a preset that none are recorded of.

    Raises ``StartError`` if there is no room.
    """
    if room is None:
        return choice
    settings = usual(preset)
    if not settings:
        log.info("counting what %s needs of the card", preset.name)
        try:
            settings = list(count())
        except PresetError as error:
            log.warning("what it needs of the card is unknown: %s", error)
            return choice
    return level(settings, choice, preset.quantize, room)


def level(
    settings: Sequence[Footprint],
    choice: MemoryChoice,
    quantization: Quantization | None,
    free: int,
) -> MemoryLevel:
    """``settings`` are the model's footprints for its usual work; ``free`` are the bytes that its
    device has left for torch. Logs the need and the level.

    Raises ``StartError`` if the level that was chosen, or with ``auto`` every level, needs more; it
    says which settings would fit.
    """
    # A card counts with what the process takes besides tensors, which it has taken already.
    room = free + CONTEXT
    mine = [one for one in settings if _same(one.work.quantize, quantization)]
    allowed = [one for one in mine if choice in ("auto", one.work.level)]
    found = fastest(allowed, room)
    if found is None:
        raise StartError(_refusal(settings, min(allowed, key=_peak), choice, room))
    work = found.work
    log.info(
        "%s at memory level %s: it needs about %.1f GiB for images of %d pixels, and %.1f GiB are "
        "free",
        work.preset,
        work.level,
        needed(found.peak) / GIB,
        work.size,
        room / GIB,
    )
    return work.level


def _refusal(
    settings: Sequence[Footprint], smallest: Footprint, choice: MemoryChoice, room: int
) -> str:
    work = smallest.work
    said = (
        f"{work.preset} needs about {needed(smallest.peak) / GIB:.1f} GiB"
        f"{f' with --memory {choice}' if choice != 'auto' else ''}"
        f" for images of {work.size} pixels, and {room / GIB:.1f} GiB of the card are free"
    )
    found = remedy(settings, smallest, room)
    if found:
        return f"{said}; write {found}"
    least = min(settings, key=lambda one: (_peak(one), order(one)))
    return (
        f"{said}; even the smallest settings need {needed(least.peak) / GIB:.1f} GiB: use a larger "
        "card, or free this one"
    )


def _peak(footprint: Footprint) -> int:
    return footprint.peak


def _same(one: Quantization | None, other: Quantization | None) -> bool:
    """float8 takes what int8 takes."""
    return ("int8" if one == "float8" else one) == ("int8" if other == "float8" else other)
