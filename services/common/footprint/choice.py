"""Which settings a card has room for. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from services.common.footprint.card import needed, usable
from services.common.footprint.footprint import Footprint
from services.common.memory import LEVELS, MemoryLevel, Quantization

#: From the most exact to the smallest. float8 takes what int8 takes.
QUANTIZATIONS: tuple[Quantization | None, ...] = (None,)  # "int8", "nf4"


@dataclass(frozen=True)
class Fit:
    """The settings of a pair, and the bytes that each process takes of its card."""

    generator: Footprint
    vlm: Footprint

    @property
    def bytes_each(self) -> tuple[int, int]:
        return needed(self.generator.peak), needed(self.vlm.peak)


def order(footprint: Footprint) -> tuple[int, int]:
    """Full precision before less, then the fastest first."""
    work = footprint.work
    quantization = "int8" if work.quantize == "float8" else work.quantize
    return QUANTIZATIONS.index(quantization), LEVELS.index(work.level)


def fastest(settings: Sequence[Footprint], room: int) -> Footprint | None:
    """The first of ``settings`` that a process with ``room`` bytes of a card can have."""
    fitting = [one for one in settings if needed(one.peak) <= room]
    return min(fitting, key=order, default=None)


def on_one_card(
    generators: Sequence[Footprint], vlms: Sequence[Footprint], gib: float
) -> Fit | None:
    """Both on one card, with the settings that cost least: quantised weights cost most, since they
    change the numbers; then what is computed again."""
    fits = [Fit(*pair) for pair in product(generators, vlms)]
    fitting = [fit for fit in fits if sum(fit.bytes_each) <= usable(gib)]
    return min(fitting, key=_cost, default=None)


def on_two_cards(
    generators: Sequence[Footprint], vlms: Sequence[Footprint], gib: float
) -> Fit | None:
    """Each on a card of its own."""
    generator = fastest(generators, usable(gib))
    vlm = fastest(vlms, usable(gib))
    return Fit(generator, vlm) if generator and vlm else None


def _cost(fit: Fit) -> tuple[int, int, int]:
    quantizations, levels = zip(order(fit.generator), order(fit.vlm), strict=True)
    # Of equal ones the generator is computed again rather: it has the finer levels.
    return sum(quantizations), sum(levels), levels[1]


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


def levels_of(kind: str) -> tuple[MemoryLevel, ...]:
    """A VLM has no decoder."""
    return LEVELS if kind == "generator" else ("fast", "lean")
