"""Measures a picture of the world by its pixels alone, without any model.

Each function takes a uint8 image (64, 64, 3), however it was made. A picture that is not one whole
shape in front of a sky and a ground measures as `None`, whatever its colours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.training.world import (
    ATTRIBUTES,
    FILL_RGB,
    SIDE,
    SQUARE,
    TRIANGLE,
    Floats,
    paint_background,
    paint_shape,
    signed_distance,
)

Mask = NDArray[np.bool_]
Image = NDArray[np.uint8]

CHROMA = 0.42  # of a shape's pixels; sky and ground have at most 0.25
HUE_TOLERANCE = 24.0  # degrees; neighbours among the world's colours are about 55 apart
WHOLE = 0.9  # share of the coloured pixels that are in the shape
FIT = 0.7  # overlap (intersection over union) with the best ideal shape
EXPLAINED = 0.075  # mean deviation from the world's own picture
NEAR = 8.0  # pixels
FLAT = 0.09  # mean deviation of the background from two flat halves
SMALL_AREA, LARGE_AREA = 60, 1100
SMALL_TO_LARGE = 11.0  # radius
THIN_TO_THICK = 2.6  # pixels
DARK_TO_BRIGHT = 0.45  # luminance
HIGH_TO_MIDDLE, MIDDLE_TO_LOW = 24.0, 40.0  # pixels from the top


@dataclass(frozen=True)
class Measured:
    """One whole shape before a landscape. Lengths in pixels, colours in [0, 1]."""

    color: str | None  # None: a hue between the world's
    shape: str
    fill: Floats  # (3,) median of the shape
    radius: float
    center_x: float
    center_y: float
    thickness: float
    luminance: float  # of the background
    sky: Floats  # (3,)
    ground: Floats  # (3,)
    horizon_y: float  # from the top

    @property
    def size(self) -> str:
        return "large" if self.radius > SMALL_TO_LARGE else "small"

    @property
    def horizontal(self) -> str:
        return "left" if self.center_x < SIDE / 2 else "right"

    @property
    def vertical(self) -> str:
        return "top" if self.center_y < SIDE / 2 else "bottom"

    @property
    def outline(self) -> str:
        return "thick" if self.thickness > THIN_TO_THICK else "thin"

    @property
    def background(self) -> str:
        return "dark" if self.luminance < DARK_TO_BRIGHT else "bright"

    @property
    def horizon(self) -> str:
        """Which third the horizon is in: high, middle or low."""
        if self.horizon_y < HIGH_TO_MIDDLE:
            return "high"
        return "middle" if self.horizon_y < MIDDLE_TO_LOW else "low"


def measure(image: Image) -> Measured | None:
    """What an image (64, 64, 3) uint8 shows; None unless it is one connected shape in the world."""
    pixels = np.asarray(image / 255, np.float32)
    found = shape_mask(pixels)
    if found is None:
        return None
    kind, overlap = shape_kind(found)
    if overlap < FIT:
        return None
    landscape = measure_landscape(pixels, found)
    if landscape is None:
        return None
    sky, ground, horizon = landscape
    fill = np.asarray(np.median(pixels[found], axis=0), np.float32)
    radius = _radius(int(found.sum()), kind)
    rows, columns = np.nonzero(found)
    measured = Measured(
        color=color_name(fill),
        shape=ATTRIBUTES["shape"][kind],
        fill=fill,
        radius=radius,
        center_x=float(columns.min() + columns.max() + 1) / 2,
        center_y=float(rows.min() + rows.max() + 1) / 2,
        thickness=_thickness(pixels, found, kind, radius, sky, ground, horizon),
        luminance=float((luminance(sky) + luminance(ground)) / 2),
        sky=sky,
        ground=ground,
        horizon_y=horizon,
    )
    return measured if residual(pixels, measured) < EXPLAINED else None


def residual(pixels: Floats, measured: Measured) -> float:
    """Mean deviation of the picture from the world's own picture with the same measures, in the
    shape's box and `NEAR` pixels around it."""
    kind = np.array([ATTRIBUTES["shape"].index(measured.shape)])
    radius = np.array([measured.radius], np.float32)
    thickness = np.array([measured.thickness], np.float32)
    x = np.array([measured.center_x], np.float32)
    # The world centres fill and outline together, but only the box of the fill was measured.
    lift = measured.thickness / 2 if measured.shape == "triangle" else 0.0
    y = np.array([measured.center_y - lift], np.float32)
    horizon = np.array([measured.horizon_y], np.float32)
    landscape = paint_background(measured.sky[None], measured.ground[None], horizon)
    ideal = paint_shape(landscape, kind, measured.fill[None], radius, x, y, thickness)[0]
    near = signed_distance(kind, radius, x, y, thickness)[0] < measured.thickness + NEAR
    return float(np.abs(ideal - pixels)[near].mean())


def color_name(rgb: Floats) -> str | None:
    """The name of the world's colour with the hue of (3,) in [0, 1]; None if it is grey, murky or
    between two colours."""
    if rgb.max() < 0.4 or rgb.max() - rgb.min() < CHROMA:
        return None
    away = [abs((hue(rgb) - hue(known) + 180) % 360 - 180) for known in FILL_RGB]
    best = int(np.argmin(away))
    return ATTRIBUTES["color"][best] if away[best] <= HUE_TOLERANCE else None


def hue(rgb: Floats) -> float:
    """Degrees around the colour hexagon of (3,) in [0, 1]."""
    red, green, blue = (float(v) for v in rgb)
    return float(np.degrees(np.arctan2(np.sqrt(3) * (green - blue), 2 * red - green - blue))) % 360


def luminance(rgb: NDArray[np.floating]) -> Floats:
    """(…, 3) → (…)."""
    return np.asarray(rgb @ np.array((0.299, 0.587, 0.114), np.float32), np.float32)


def shape_mask(pixels: Floats) -> Mask | None:
    """(64, 64): the coloured pixels, if nearly all of them form one patch with the size of a
    shape."""
    colored = pixels.max(axis=-1) - pixels.min(axis=-1) > CHROMA
    largest = largest_patch(colored)
    area = int(largest.sum())
    if not SMALL_AREA <= area <= LARGE_AREA or area < WHOLE * colored.sum():
        return None
    fill = np.median(pixels[largest], axis=0)
    if np.abs(pixels[largest] - fill).max(axis=-1).mean() > 0.2:
        return None
    return largest


def largest_patch(mask: Mask) -> Mask:
    """The largest 4-connected patch of a mask."""
    labels = np.where(mask, np.arange(1, mask.size + 1).reshape(mask.shape), 0)
    while True:
        padded = np.pad(labels, 1)
        sides = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
        grown = np.where(mask, np.max([labels, *sides], axis=0), 0)
        if (grown == labels).all():
            break
        labels = grown
    counts = np.bincount(labels.ravel())
    counts[0] = 0
    return np.asarray(mask & (labels == counts.argmax()))


def shape_kind(found: Mask) -> tuple[int, float]:
    """The ideal shape of the same box and area that overlaps most, and how much it does (IoU)."""
    rows, columns = np.nonzero(found)
    x, y = (columns.min() + columns.max() + 1) / 2, (rows.min() + rows.max() + 1) / 2
    kinds = np.arange(len(ATTRIBUTES["shape"]))
    radius = np.array([_radius(int(found.sum()), int(kind)) for kind in kinds], np.float32)
    center = np.full(len(kinds), 1, np.float32)
    ideal = signed_distance(kinds, radius, center * x, center * y, center * 0) < 0
    overlap = (ideal & found).sum(axis=(1, 2)) / (ideal | found).sum(axis=(1, 2))
    return int(overlap.argmax()), float(overlap.max())


def measure_landscape(pixels: Floats, found: Mask) -> tuple[Floats, Floats, float] | None:
    """(sky, ground, horizon), from the columns beside the shape; None unless they are two flat
    halves."""
    columns = np.nonzero(found.any(axis=0))[0]
    beside = np.ones(SIDE, np.bool_)
    beside[max(columns.min() - 6, 0) : columns.max() + 7] = False
    if beside.sum() < 4:
        beside[:2] = beside[-2:] = True
    strip = pixels[:, beside]
    rows = np.median(strip, axis=1)
    fits = []
    for split in range(4, SIDE - 3):
        sky, ground = np.median(rows[:split], axis=0), np.median(rows[split:], axis=0)
        error = np.abs(rows[:split] - sky).sum() + np.abs(rows[split:] - ground).sum()
        fits.append((float(error), split, sky, ground))
    _, split, sky, ground = min(fits, key=lambda fit: fit[0])
    if np.abs(sky - ground).max() < 0.05:
        return None
    ideal = np.where(np.arange(SIDE)[:, None] < split, sky, ground)
    if np.abs(strip - ideal[:, None]).mean() > FLAT:
        return None
    contrast = ground - sky
    edge = rows[max(split - 3, 0) : split + 3]
    below = np.clip((edge - sky) @ contrast / (contrast @ contrast), 0, 1)
    horizon = max(split - 3, 0) + len(edge) - float(below.sum())
    return sky.astype(np.float32), ground.astype(np.float32), horizon


def _radius(area: int, kind: int) -> float:
    per_square = (np.pi, 4 * SQUARE**2, 3 * np.sqrt(3) * TRIANGLE**2)[kind]
    return float(np.sqrt(area / per_square))


def _thickness(
    pixels: Floats,
    found: Mask,
    kind: int,
    radius: float,
    sky: Floats,
    ground: Floats,
    horizon: float,
) -> float:
    """Mean width of the dark ring around the shape, from its area and the shape's perimeter."""
    behind = np.where(np.arange(SIDE)[:, None] < horizon, luminance(sky), luminance(ground))
    black = np.clip(1 - luminance(pixels) / behind, 0, 1) * ~found
    rows, columns = np.nonzero(found)
    near = np.zeros_like(found)
    near[max(rows.min() - 8, 0) : rows.max() + 9, max(columns.min() - 8, 0) : columns.max() + 9] = (
        True
    )
    area = float(black[near & (black > 0.3)].sum())
    perimeter = (2 * np.pi, 8 * SQUARE, 6 * np.sqrt(3) * TRIANGLE)[kind] * radius
    corner = (np.pi, 4, 3 * np.sqrt(3))[kind]
    return float((np.sqrt(perimeter**2 + 4 * corner * area) - perimeter) / (2 * corner))
