"""At which level of memory a model starts: the fastest that its card has room for, decided before
anything is loaded. Needs no torch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence

from services.common.errors import StartError
from services.common.footprint.card import CONTEXT, GIB, needed
from services.common.footprint.choice import fastest, order, remedy
from services.common.footprint.footprint import Footprint
from services.common.footprint.spread import over
from services.common.footprint.usual import usual
from services.common.memory import MemoryChoice, MemoryLevel, Quantization
from services.common.presets import AnyPreset, PresetError

log = logging.getLogger(__name__)

#: Of a machine.
_MOST_CARDS = 8


def chosen(
    preset: AnyPreset,
    choice: MemoryChoice,
    room: int | None,
    count: Callable[[], Iterable[Footprint]],
    cards: int = 1,
) -> MemoryChoice:
    """The fastest level for the preset's usual work in ``room``, or in so much of each of several
    ``cards``; ``choice`` itself where a device does not say what it has. ``count`` counts the
    footprints of a preset that none are recorded of.

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
    return level(settings, choice, preset.quantize, room, cards)


def level(
    settings: Sequence[Footprint],
    choice: MemoryChoice,
    quantization: Quantization | None,
    free: int,
    cards: int = 1,
) -> MemoryLevel:
    """``settings`` are the model's footprints for its usual work; ``free`` are the bytes that its
    device has left for torch, or each of several ``cards`` has. Logs the need and the level.

    Raises ``StartError`` if the level that was chosen, or with ``auto`` every level, needs more; it
    says which settings would fit.
    """
    # A card counts with what the process takes besides tensors, which it has taken already.
    room = free + CONTEXT
    mine = [one for one in settings if _same(one.work.quantize, quantization)]
    allowed = [one for one in mine if choice in ("auto", one.work.level)]
    # A model of fewer layers is refused when it is loaded.
    spread = over(allowed, cards) or allowed
    found = fastest(spread, room)
    if found is None:
        more = _more(allowed, cards, room)
        raise StartError(
            _refusal(
                over(settings, cards) or settings,
                min(spread, key=_peak),
                choice,
                room,
                cards,
                more,
            )
        )
    work = found.work
    log.info(
        "%s at memory level %s: it needs about %.1f GiB%s for images of %d pixels, and %.1f GiB "
        "are free",
        work.preset,
        work.level,
        needed(found.peak) / GIB,
        _of_each(cards),
        work.size,
        room / GIB,
    )
    return work.level


def _more(allowed: Sequence[Footprint], cards: int, room: int) -> int | None:
    """How many cards with so much room would do; ``None`` if that many are not in one machine."""
    more = range(cards + 1, _MOST_CARDS + 1)
    return next((count for count in more if fastest(over(allowed, count), room)), None)


def _of_each(cards: int) -> str:
    return f" of each of {cards} cards" if cards > 1 else ""


def _refusal(
    settings: Sequence[Footprint],
    smallest: Footprint,
    choice: MemoryChoice,
    room: int,
    cards: int,
    more: int | None,
) -> str:
    work = smallest.work
    said = (
        f"{work.preset} needs about {needed(smallest.peak) / GIB:.1f} GiB{_of_each(cards)}"
        f"{f' with --memory {choice}' if choice != 'auto' else ''}"
        f" for images of {work.size} pixels, and {room / GIB:.1f} GiB of "
        f"{'the card' if cards == 1 else 'one'} are free"
    )
    found = remedy(settings, smallest, room)
    if more:
        devices = ",".join(f"cuda:{number}" for number in range(more))
        said += (
            f"; spread it over {more} such cards (--device {devices}, or dualprocess up --vlm "
            f"{work.preset}:1x{more})"
        )
        return f"{said}, or write {found}" if found else said
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
