"""Curves as SVG paths in a box of 320 × 120."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 320, 120
#: More points than this would be less than a pixel apart.
_POINTS = 400
#: How much of the line behind a noisy curve is its own past.
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
    series: Sequence[tuple[str, Sequence[float]]],
    steps: int,
    *,
    top: float | None = None,
    most: float = 0.0,
) -> Chart:
    """``series`` of a value a step, over an axis of ``steps``. From 0 up to ``top``, else to a
    round number above the largest value and above ``most``."""
    largest = max([most, *(value for _, values in series for value in values)])
    top = top if top is not None else _round_up(largest)
    lines = [
        Line(label, _path(values, steps, top), _path(_smooth(values), steps, top), values[-1])
        for label, values in series
        if values
    ]
    return Chart(title, top, 0.0, steps, lines)


def _path(values: Sequence[float], steps: int, top: float) -> str:
    stride = max(math.ceil(len(values) / _POINTS), 1)
    indexes = range(0, len(values), stride)
    across = WIDTH / max(steps - 1, 1)
    places = (
        (index * across, HEIGHT * (1 - min(max(values[index] / top, 0), 1))) for index in indexes
    )
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)


def _smooth(values: Sequence[float]) -> list[float]:
    smooth: list[float] = []
    for count, value in enumerate(values, 1):
        # At first the mean of all there is.
        share = min(_SMOOTH, 1 - 1 / count)
        smooth.append(share * smooth[-1] + (1 - share) * value if smooth else value)
    return smooth


def _round_up(value: float) -> float:
    scale = 10.0 ** math.floor(math.log10(max(value, 1e-6)))
    return next(scale * step for step in (1, 2, 5, 10) if scale * step >= value)
