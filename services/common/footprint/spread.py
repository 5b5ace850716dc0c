"""A VLM whose text layers are spread over several cards: where they lie, and what each card needs.
Needs no torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise

from services.common.footprint.footprint import Footprint


def run_ends(sizes: Sequence[int], first: int, count: int) -> Sequence[int]:
    """Where each of ``count`` runs of layers with these ``sizes`` ends, so that the largest sum is
    the least; ``first`` is added to that of the first run. No run is empty."""

    @cache
    def best(begin: int, left: int) -> tuple[int, tuple[int, ...]]:
        """The largest sum, and the ends, of ``left`` runs that begin here."""
        beyond = first if begin == 0 else 0
        if left == 1:
            return beyond + sum(sizes[begin:]), (len(sizes),)
        found = []
        for end in range(begin + 1, len(sizes) - left + 2):
            largest, ends = best(end, left - 1)
            found.append((max(beyond + sum(sizes[begin:end]), largest), (end, *ends)))
        return min(found)

    return best(0, count)[1]


def over(settings: Iterable[Footprint], cards: int) -> list[Footprint]:
    """What each of ``cards`` cards needs at most: the weights of the fullest one, and all else as
    if it were there, too. Without those that have fewer layers, as every generator has."""
    if cards == 1:
        return list(settings)
    return [_over(one, cards) for one in settings if one.layers >= cards]


def _over(one: Footprint, cards: int) -> Footprint:
    rest = one.weights - one.layers * one.layer
    ends = run_ends([one.layer] * one.layers, rest, cards)
    counts = [end - begin for begin, end in pairwise([0, *ends])]
    fullest = max(rest + counts[0] * one.layer, *(count * one.layer for count in counts[1:]))
    return replace(one, weights=fullest, step=one.step - one.weights + fullest)
