"""Which settings a card has room for. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from services.common.footprint.card import needed
from services.common.footprint.footprint import Footprint
from services.common.memory import LEVELS, Quantization

#: What a card's room is computed with; float8 takes what int8 takes.
SMALLER: tuple[Quantization, ...] = ("int8", "nf4")
#: From the most exact to the smallest.
QUANTIZATIONS: tuple[Quantization | None, ...] = (None, *SMALLER)


def order(footprint: Footprint) -> tuple[int, int]:
    """Full precision before less, then the fastest first."""
    work = footprint.work
    quantization = "int8" if work.quantize == "float8" else work.quantize
    return QUANTIZATIONS.index(quantization), LEVELS.index(work.level)


def fastest(settings: Sequence[Footprint], room: int) -> Footprint | None:
    """The first of ``settings`` that a process with ``room`` bytes of a card can have."""
    fitting = [one for one in settings if needed(one.peak) <= room]
    return min(fitting, key=order, default=None)


def together(processes: Sequence[Sequence[Footprint]], room: int) -> tuple[Footprint, ...] | None:
    """One of the settings of each process, so that all of them have ``room`` bytes of one card
    together. Of those that fit it is the combination that costs least: quantised weights cost most,
    since they change the numbers; then what is computed again."""
    fitting = (
        combination
        for combination in product(*processes)
        if sum(needed(one.peak) for one in combination) <= room
    )
    return min(fitting, key=_cost, default=None)


def apart(processes: Sequence[Sequence[Footprint]], room: int) -> tuple[Footprint, ...] | None:
    """The same, each process with ``room`` bytes of a card of its own."""
    each = [fastest(settings, room) for settings in processes]
    found = tuple(one for one in each if one is not None)
    return found if len(found) == len(each) else None


def _cost(combination: Sequence[Footprint]) -> tuple[int, int, int]:
    quantizations, levels = zip(*map(order, combination), strict=True)
    # Of equal ones the generator is computed again rather, which has the finer levels.
    return sum(quantizations), sum(levels), levels[-1]


def remedy(settings: Sequence[Footprint], current: Footprint, room: int) -> str:
    """What to set so that a process fits into ``room`` bytes, as flags; empty if nothing does."""
    found = fastest(settings, room)
    if found is None:
        return ""
    changes = []
    if found.work.level != current.work.level:
        changes.append(f"--memory {found.work.level}")
    if found.work.quantize != current.work.quantize:
        changes.append(f"--quantize {found.work.quantize}")
    return " ".join(changes)
