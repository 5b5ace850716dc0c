"""The procedural world: a sky, a ground, and one outlined shape on 64×64 pixels.

A scene has eight attributes. Each attribute has a rank in (0, 1), which the noise of a latent
decides (`ranks_from_noise`), and a class, which the caption states or else the rank decides. So
each scene is a deterministic function of caption and noise, and a generator can learn to make it in
one step, without a teacher.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

SIDE = 64
LATENT_SHAPE = (4, 16, 16)

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "color": ("red", "yellow", "green", "cyan", "blue", "purple"),
    "shape": ("circle", "square", "triangle"),
    "size": ("small", "large"),
    "horizontal": ("left", "right"),
    "vertical": ("top", "bottom"),
    "outline": ("thin", "thick"),
    "background": ("bright", "dark"),
    "horizon": ("high", "middle", "low"),
}
NAMES = tuple(ATTRIBUTES)
COLOR, SHAPE, SIZE, HORIZONTAL, VERTICAL, OUTLINE, BACKGROUND, HORIZON = range(len(NAMES))

# Upper rank of each class except the last.
_BOUNDS: tuple[tuple[float, ...], ...] = (
    (1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6),
    (1 / 3, 2 / 3),
    (0.5,),
    (0.5,),
    (0.5,),
    (0.5,),
    (0.5,),
    (0.3, 0.7),
)

FILL_RGB = np.array(
    [
        (0.90, 0.10, 0.10),
        (0.95, 0.85, 0.08),
        (0.10, 0.72, 0.12),
        (0.08, 0.82, 0.86),
        (0.10, 0.18, 0.92),
        (0.76, 0.12, 0.86),
    ],
    np.float32,
)
# Bright, dark.
SKY_RGB = np.array([(0.72, 0.82, 0.92), (0.17, 0.21, 0.29)], np.float32)
GROUND_RGB = np.array([(0.66, 0.58, 0.44), (0.31, 0.27, 0.22)], np.float32)
OUTLINE_RGB = np.array((0.02, 0.02, 0.02), np.float32)

# Pixel ranges of each class; the rank places a scene inside its class.
RADIUS = np.array([(8.0, 9.0), (13.0, 14.5)], np.float32)
CENTER_X = np.array([(22.0, 25.0), (39.0, 42.0)], np.float32)
CENTER_Y = np.array([(21.0, 24.0), (40.0, 43.0)], np.float32)
THICKNESS = np.array([(1.1, 1.4), (3.3, 3.8)], np.float32)
HORIZON_Y = np.array([(12.0, 22.0), (26.0, 38.0), (42.0, 52.0)], np.float32)

SQUARE = 0.886  # half side of a square with the area of a circle of radius 1
TRIANGLE = 0.65  # inradius of the triangle that stands for radius 1


@dataclass(frozen=True)
class Scenes:
    """N scenes. Lengths in pixels from the top left, colours in [0, 1]."""

    classes: Ints  # (N, 8)
    kind: Ints  # (N,) index into ATTRIBUTES["shape"]
    fill: Floats  # (N, 3)
    radius: Floats  # (N,)
    center_x: Floats  # (N,)
    center_y: Floats  # (N,)
    thickness: Floats  # (N,)
    sky: Floats  # (N, 3)
    ground: Floats  # (N, 3)
    horizon: Floats  # (N,)

    def __len__(self) -> int:
        return len(self.classes)


def ranks_from_noise(noise: NDArray[np.float32]) -> Floats:
    """(N, 4, 16, 16) standard normal → (N, 8) uniform in (0, 1).

    Attribute `j` is Φ of the scaled mean of channel `j // 2` over the rows of parity `j % 2`.
    """
    scaled = _row_means(noise).reshape(len(noise), len(NAMES)) * math.sqrt(8 * 16)
    below = np.vectorize(math.erf)(scaled / math.sqrt(2))
    return np.asarray(0.5 + 0.5 * below, np.float32)


def with_ranks_of(noise: Floats, model: Floats) -> Floats:
    """`noise` (N, 4, 16, 16) shifted so that it has the ranks of the noise `model`."""
    shift = (_row_means(model) - _row_means(noise))[..., None]
    shifted = noise.copy()
    shifted[:, :, 0::2] += shift[:, :, :1]
    shifted[:, :, 1::2] += shift[:, :, 1:]
    return shifted


def _row_means(noise: Floats) -> Floats:
    """(N, 4, 16, 16) → (N, 4, 2): means of each channel's even and odd rows."""
    rows = np.stack([noise[:, :, 0::2], noise[:, :, 1::2]], axis=2)
    return np.asarray(rows.mean(axis=(3, 4)), np.float32)


def classes_from_ranks(ranks: Floats) -> Ints:
    """(N, 8) ranks → (N, 8) class indices."""
    columns = [np.searchsorted(bounds, ranks[:, j]) for j, bounds in enumerate(_BOUNDS)]
    return np.stack(columns, axis=1).astype(np.int64)


def random_classes(rng: np.random.Generator, count: int) -> Ints:
    """(count, 8) class indices, every class of an attribute equally likely."""
    return np.stack([rng.integers(len(v), size=count) for v in ATTRIBUTES.values()], axis=1)


def compose(classes: Ints, ranks: Floats, said: Bools | None = None) -> Scenes:
    """The scenes with these classes (N, 8) and ranks (N, 8).

    Inside a stated class the rank decides the value. An attribute that isn't `said` (N, 8) can have
    any value of all its classes, and changes smoothly with the noise; only color and shape jump.
    Without `said`, all attributes are stated.
    """
    stated = np.ones(classes.shape, np.bool_) if said is None else said

    def place(ranges: Floats, attribute: int) -> Floats:
        inside = np.where(
            stated[:, attribute, None],
            ranges[classes[:, attribute]],
            (ranges[0, 0], ranges[-1, -1]),
        )
        low, high = inside.T
        return np.asarray(low + (high - low) * ranks[:, attribute], np.float32)

    darkness = np.where(stated[:, BACKGROUND], classes[:, BACKGROUND], ranks[:, BACKGROUND]).astype(
        np.float32
    )[:, None]
    level = np.where(stated[:, BACKGROUND], 0.92 + 0.16 * ranks[:, BACKGROUND], 1)
    level = level.astype(np.float32)[:, None]
    return Scenes(
        classes=classes,
        kind=classes[:, SHAPE],
        fill=FILL_RGB[classes[:, COLOR]],
        radius=place(RADIUS, SIZE),
        center_x=place(CENTER_X, HORIZONTAL),
        center_y=place(CENTER_Y, VERTICAL),
        thickness=place(THICKNESS, OUTLINE),
        sky=(SKY_RGB[0] + (SKY_RGB[1] - SKY_RGB[0]) * darkness) * level,
        ground=(GROUND_RGB[0] + (GROUND_RGB[1] - GROUND_RGB[0]) * darkness) * level,
        horizon=place(HORIZON_Y, HORIZON),
    )


def render(scenes: Scenes) -> Floats:
    """(N, 64, 64, 3) in [0, 1], antialiased."""
    return paint_shape(
        paint_background(scenes.sky, scenes.ground, scenes.horizon),
        scenes.kind,
        scenes.fill,
        scenes.radius,
        scenes.center_x,
        scenes.center_y,
        scenes.thickness,
    )


def paint_background(sky: Floats, ground: Floats, horizon: Floats) -> Floats:
    """(N, 64, 64, 3): `sky` above `horizon` pixels from the top, `ground` below."""
    below = np.clip(np.arange(SIDE)[None] + 1 - horizon[:, None], 0, 1)[..., None, None]
    rows = sky[:, None, None] + (ground - sky)[:, None, None] * below
    return np.ascontiguousarray(np.broadcast_to(rows, (len(sky), SIDE, SIDE, 3)), np.float32)


def paint_shape(
    image: Floats,
    kind: Ints,
    fill: Floats,
    radius: Floats,
    center_x: Floats,
    center_y: Floats,
    thickness: Floats,
) -> Floats:
    """The images (N, 64, 64, 3) with one outlined shape over each; the outline is outside of the
    fill."""
    distance = signed_distance(kind, radius, center_x, center_y, thickness)[..., None]
    ring = np.clip(0.5 + thickness[:, None, None, None] - distance, 0, 1)
    inside = np.clip(0.5 - distance, 0, 1)
    image = image + (OUTLINE_RGB - image) * ring
    return np.asarray(image + (fill[:, None, None] - image) * inside, np.float32)


def signed_distance(
    kind: Ints, radius: Floats, center_x: Floats, center_y: Floats, thickness: Floats
) -> Floats:
    """(N, 64, 64) pixels from the edge of the fill, negative inside.

    (center_x, center_y) is the middle of the bounding box of fill and outline together.
    """
    grid = np.arange(SIDE, dtype=np.float32) + 0.5
    x = np.broadcast_to(grid[None, None] - center_x[:, None, None], (len(kind), SIDE, SIDE))
    y = np.broadcast_to(grid[None, :, None] - center_y[:, None, None], (len(kind), SIDE, SIDE))
    r = radius[:, None, None]
    inradius = TRIANGLE * r
    down = y - (inradius + thickness[:, None, None]) / 2
    circle = np.sqrt(x * x + y * y) - r
    square = np.maximum(np.abs(x), np.abs(y)) - SQUARE * r
    triangle = np.maximum(down, math.sqrt(3) / 2 * np.abs(x) - down / 2) - inradius
    choice = kind[:, None, None]
    return np.asarray(np.where(choice == 0, circle, np.where(choice == 1, square, triangle)))


def to_uint8(image: Floats) -> NDArray[np.uint8]:
    """[0, 1] floats → 8 bits, rounded."""
    return np.asarray(np.clip(image * 255 + 0.5, 0, 255), np.uint8)
