"""Measures by pixels what a LoRA changed that its task does not ask about.

Without torch, like `measure`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.training.measure import Image, Measured, measure

#: The fields of `Measured` that are a length or a brightness.
MEASURES = ("radius", "center_x", "center_y", "thickness", "luminance", "horizon_y")


@dataclass(frozen=True)
class Moved:
    """Two values over the seeds: the standard deviation with the LoRA divided by the base model's;
    and how far a picture moved from that of the same seed, in the base model's standard
    deviations."""

    spread: float
    move: float


@dataclass(frozen=True)
class Unasked:
    """`moved` for each measure, of the pictures that are whole before and after. `color_kept` is
    the share of them whose colour has the same name as before."""

    moved: dict[str, Moved]
    color_kept: float

    def furthest(self, asked: frozenset[str]) -> tuple[str, float]:
        """The measure that moved most of those that nobody asked about, and how far."""
        moves = [(self.moved[name].move, name) for name in MEASURES if name not in asked]
        move, name = max(moves)
        return name, move


def unasked(base: Sequence[Image], learnt: Sequence[Image]) -> Unasked | None:
    """What changed between images (64, 64, 3) of the same seeds in the same order; None if less
    than two are whole before and after."""
    both = [(before, after) for before, after in _measured(base, learnt) if before and after]
    if len(both) < 2:
        return None
    moved = {}
    for name in MEASURES:
        before, after = np.array([[getattr(one, name) for one in pair] for pair in both]).T
        scale = before.std()
        moved[name] = Moved(
            float(after.std() / scale), float(np.abs(after - before).mean() / scale)
        )
    kept = [before.color == after.color for before, after in both]
    return Unasked(moved, float(np.mean(kept)))


def diversity(base: Sequence[Image], learnt: Sequence[Image]) -> float:
    """Mean distance between two pictures with the LoRA, divided by the base model's."""
    return _spread(learnt) / _spread(base)


def _spread(images: Sequence[Image]) -> float:
    pairs = itertools.combinations([image.astype(np.float32) for image in images], 2)
    return float(np.mean([np.abs(left - right).mean() for left, right in pairs]))


def _measured(
    base: Sequence[Image], learnt: Sequence[Image]
) -> list[tuple[Measured | None, Measured | None]]:
    return [(measure(before), measure(after)) for before, after in zip(base, learnt, strict=True)]
