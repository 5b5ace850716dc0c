"""Curves as SVG paths in a box of 320 × 120."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

#: Steps, counted from 1, with their values. A skipped step is not among them.
Curve = list[tuple[int, float]]

WIDTH, HEIGHT = 320, 120
#: The most points of a curve; more would be less than a pixel apart.
_POINTS = 400
#: The weight of earlier values in the running mean of a noisy curve.
_SMOOTH = 0.85


@dataclass(frozen=True)
class Line:
    label: str
    #: The values themselves, faint, and their running mean.
    raw: str
    smooth: str
    last: float


@dataclass(frozen=True)
class Chart:
    title: str
    top: float
    bottom: float
    steps: int
    lines: list[Line]


def chart(
    title: str,
    series: Sequence[tuple[str, Curve]],
    steps: int,
    *,
    top: float | None = None,
    most: float = 0.0,
) -> Chart:
    """A chart of ``series`` over ``steps`` steps. The axis goes from 0 to ``top``, or else to a
    round number above the largest value and above ``most``."""
    largest = max([most, *(value for _, curve in series for _, value in curve)])
    top = top if top is not None else _round_up(largest)
    lines = [
        Line(label, _path(curve, steps, top), _path(_smooth(curve), steps, top), curve[-1][1])
        for label, curve in series
        if curve
    ]
    return Chart(title, top, 0.0, steps, lines)


def _path(curve: Curve, steps: int, top: float) -> str:
    stride = max(math.ceil(len(curve) / _POINTS), 1)
    across = WIDTH / max(steps - 1, 1)
    places = (
        ((step - 1) * across, HEIGHT * (1 - min(max(value / top, 0), 1)))
        for step, value in curve[::stride]
    )
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)


def _smooth(curve: Curve) -> Curve:
    smooth: Curve = []
    for count, (step, value) in enumerate(curve, 1):
        # At first it is the mean of all values so far.
        share = min(_SMOOTH, 1 - 1 / count)
        mean = share * smooth[-1][1] + (1 - share) * value if smooth else value
        smooth.append((step, mean))
    return smooth


def _round_up(value: float) -> float:
    scale = 10.0 ** math.floor(math.log10(max(value, 1e-6)))
    return next(scale * step for step in (1, 2, 5, 10) if scale * step >= value)
