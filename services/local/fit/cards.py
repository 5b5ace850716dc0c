"""Which cards hold a pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from services.common.footprint.card import needed, usable
from services.common.footprint.choice import apart, together
from services.common.footprint.footprint import Footprint
from services.common.footprint.spread import over

Pair = tuple[Footprint, ...]


@dataclass(frozen=True)
class Held:
    """What cards of ``gib`` hold: generator and VLM on one, each on one of two, or the generator on
    one of three and the VLM spread over two. ``None`` where even the smallest settings are too
    large. What is spread is what each card needs at most."""

    gib: int
    one: Pair | None
    two: Pair | None
    three: Pair | None


def held(
    generators: Sequence[Footprint], vlms: Sequence[Footprint], cards: Sequence[int]
) -> list[Held]:
    pair, spread = (generators, vlms), (generators, over(vlms, 2))
    return [
        Held(
            gib,
            together(pair, usable(gib)),
            apart(pair, usable(gib)),
            apart(spread, usable(gib)),
        )
        for gib in cards
    ]


def as_json(held: Held) -> dict[str, object]:
    return {
        "gib": held.gib,
        "one": _told(held.one),
        "two": _told(held.two),
        "three": _told(held.three),
    }


def _told(pair: Pair | None) -> dict[str, object] | None:
    if pair is None:
        return None
    return {
        one.work.kind: {
            "memory": one.work.level,
            "quantize": one.work.quantize,
            "bytes": needed(one.peak),
        }
        for one in pair
    }
