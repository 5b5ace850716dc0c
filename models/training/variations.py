"""Unusual scenes, so that VAE and VLM learn them as well."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from models.training.world import (
    ATTRIBUTES,
    FILL_RGB,
    NAMES,
    SIDE,
    Floats,
    Scenes,
    classes_from_ranks,
    compose,
    paint_background,
    paint_shape,
    random_classes,
    render,
)


def random_scenes(rng: np.random.Generator, count: int) -> Scenes:
    """`count` scenes of the world, all classes of an attribute equally likely."""
    ranks = rng.random((count, len(NAMES)), dtype=np.float32)
    return compose(random_classes(rng, count), ranks)


def between(rng: np.random.Generator, count: int) -> Scenes:
    """Scenes anywhere between the classes, colours too."""
    ranks = rng.random((count, len(NAMES)), dtype=np.float32)
    said = rng.random((count, len(NAMES))) < 0.3
    classes = np.where(said, random_classes(rng, count), classes_from_ranks(ranks))
    scenes = compose(classes, ranks, said)
    share = rng.uniform(0, 1, (count, 1)) ** 1.5 * (rng.random((count, 1)) < 0.7)
    other = FILL_RGB[rng.integers(len(FILL_RGB), size=count)]
    fill = scenes.fill + (other - scenes.fill) * share
    return replace(scenes, fill=fill.astype(np.float32))


def jittered(scenes: Scenes, rng: np.random.Generator, strength: float = 1.0) -> Scenes:
    """The same classes with colours, lengths and places a little outside the world's ranges."""
    count = len(scenes)

    def add(values: Floats, spread: float) -> Floats:
        noise = rng.uniform(-spread, spread, values.shape) * strength
        return np.asarray(values + noise, np.float32)

    gain = rng.uniform(1 - 0.15 * strength, 1 + 0.08 * strength, (count, 1)).astype(np.float32)
    return replace(
        scenes,
        fill=np.clip(add(scenes.fill * gain, 0.07), 0, 1),
        radius=add(scenes.radius, 0.8),
        center_x=add(scenes.center_x, 2.0),
        center_y=add(scenes.center_y, 2.0),
        thickness=np.maximum(add(scenes.thickness, 0.25), 0.8),
        sky=np.clip(add(scenes.sky, 0.04), 0, 1),
        ground=np.clip(add(scenes.ground, 0.04), 0, 1),
        horizon=add(scenes.horizon, 1.5),
    )


def strange_backgrounds(scenes: Scenes, rng: np.random.Generator) -> Scenes:
    """The same shapes in front of skies and grounds with colours that the world doesn't have."""
    count = len(scenes)
    colors = FILL_RGB[rng.integers(len(FILL_RGB), size=(2, count))]
    mix = rng.uniform(0.2, 1.0, (2, count, 1)).astype(np.float32)
    where = rng.random((2, count, 1)) < 0.7
    sky = np.where(where[0], scenes.sky + (colors[0] - scenes.sky) * mix[0], scenes.sky)
    ground = np.where(where[1], scenes.ground + (colors[1] - scenes.ground) * mix[1], scenes.ground)
    # Some grounds have nearly the colour of their skies.
    alike = np.where(rng.random((count, 1)) < 0.25, rng.uniform(0.6, 1.0, (count, 1)), 0)
    ground = ground + (sky - ground) * alike
    return replace(scenes, sky=sky.astype(np.float32), ground=ground.astype(np.float32))


def without_shape(scenes: Scenes) -> Floats:
    """(N, 64, 64, 3): the landscapes without shapes."""
    return paint_background(scenes.sky, scenes.ground, scenes.horizon)


def crowded(scenes: Scenes, rng: np.random.Generator, most: int = 9) -> Floats:
    """(N, 64, 64, 3): the landscapes with two to `most` shapes, half of them of one colour each."""
    count = len(scenes)
    image = without_shape(scenes)
    number = rng.integers(2, most + 1, count)
    one_color = rng.random(count) < 0.5
    one_kind = rng.random(count) < 0.5
    for i in range(most):
        kind = np.where(one_kind, scenes.kind, rng.integers(len(ATTRIBUTES["shape"]), size=count))
        other = FILL_RGB[rng.integers(len(FILL_RGB), size=count)]
        painted = paint_shape(
            image,
            kind,
            np.where(one_color[:, None], scenes.fill, other),
            np.where(number > 3, rng.uniform(3, 8, count), scenes.radius).astype(np.float32),
            rng.uniform(6, 58, count).astype(np.float32),
            rng.uniform(6, 58, count).astype(np.float32),
            scenes.thickness * np.where(rng.random(count) < 0.5, 1, 0.1).astype(np.float32),
        )
        image = np.where((number > i)[:, None, None, None], painted, image)
    return image


def ghosts(scenes: Scenes, rng: np.random.Generator) -> Floats:
    """(N, 64, 64, 3): each picture blended with another one."""
    image = render(scenes)
    share = rng.uniform(0.3, 0.7, (len(scenes), 1, 1, 1)).astype(np.float32)
    return np.asarray(image + (np.roll(image, 1, axis=0) - image) * share, np.float32)


def blurred(scenes: Scenes, rng: np.random.Generator) -> Floats:
    """(N, 64, 64, 3): pictures so blurred that outline and kind of shape are gone."""
    width = rng.uniform(3, 8, (len(scenes), 1, 1, 1))
    return np.asarray(np.clip(_softened(render(scenes), width), 0, 1), np.float32)


def _softened(image: Floats, width: NDArray[np.floating]) -> Floats:
    """(N, 64, 64, C) blurred with a Gaussian of `width` (N, 1, 1, 1) pixels."""
    frequency = np.fft.fftfreq(SIDE).astype(np.float32)
    square = frequency[:, None] ** 2 + frequency[None] ** 2
    soft = np.exp(-2 * (np.pi * width) ** 2 * square[None, :, :, None])
    spectrum = np.fft.fft2(image, axes=(1, 2)) * soft
    return np.asarray(np.fft.ifft2(spectrum, axes=(1, 2)).real, np.float32)


def bled(scenes: Scenes, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """(N, 64, 64, 3): pictures in which the shape's colour spreads over its surroundings; and (N,):
    how strongly, in [0, 1]."""
    image = render(scenes)
    inside = np.abs(image - scenes.fill[:, None, None]).max(axis=-1, keepdims=True) < 0.1
    width = rng.uniform(2, 7, (len(scenes), 1, 1, 1))
    soft = np.clip(1.6 * _softened(inside.astype(np.float32), width), 0, 1)
    strength = rng.uniform(0, 1, len(scenes)).astype(np.float32)
    # The outline stays black.
    around = image.max(axis=-1, keepdims=True) > 0.15
    share = soft * strength[:, None, None, None] * around * ~inside
    ran = image + (scenes.fill[:, None, None] - image) * share
    return np.asarray(ran, np.float32), strength


def warped(scenes: Scenes, rng: np.random.Generator) -> Floats:
    """(N, 64, 64, 3): pictures whose shapes are bent so far that they are no shapes any more."""
    image = render(scenes)
    reach = rng.uniform(3, 8, (len(scenes), 1, 1, 1))
    coarse = rng.normal(0, 1, (len(scenes), 8, 8, 2)) * reach
    at = np.linspace(0, 7, SIDE)
    low = np.minimum(at.astype(int), 6)
    part = (at - low)[None, :, None, None]
    rows = coarse[:, low] * (1 - part) + coarse[:, low + 1] * part
    part = part.transpose(0, 2, 1, 3)
    moved = rows[:, :, low] * (1 - part) + rows[:, :, low + 1] * part
    grid = np.indices((SIDE, SIDE)).transpose(1, 2, 0)[None]
    y, x = np.clip(grid + moved.round().astype(int), 0, SIDE - 1).transpose(3, 0, 1, 2)
    return np.asarray(image[np.arange(len(scenes))[:, None, None], y, x])
