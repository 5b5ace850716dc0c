"""Captions of scenes, with many or few details. The noise decides what a caption leaves out."""

from __future__ import annotations

import numpy as np

from models.training.world import (
    ATTRIBUTES,
    BACKGROUND,
    COLOR,
    HORIZON,
    HORIZONTAL,
    NAMES,
    OUTLINE,
    SHAPE,
    SIZE,
    VERTICAL,
    Bools,
    Ints,
)

TAILS: dict[int, str] = {
    OUTLINE: "with a {} outline",
    HORIZONTAL: "on the {}",
    VERTICAL: "at the {}",
    BACKGROUND: "on a {} background",
    HORIZON: "with a {} horizon",
}


def random_said(rng: np.random.Generator, count: int) -> Bools:
    """(count, 8): which attributes a caption states. One caption in four states all of them, one in
    five only the shape; the others state each attribute with probability 1/2."""
    said = rng.random((count, len(NAMES))) < 0.5
    level = rng.random(count)
    said[level < 0.25] = True
    said[level > 0.8] = False
    said[:, SHAPE] |= rng.random(count) < 0.95
    return said


def caption(classes: Ints, said: Bools, order: tuple[int, ...] = tuple(TAILS)) -> str:
    """One scene's caption: `classes` (8,), `said` (8,), the order of the phrases at the end."""
    words = ["a"]
    words += [_value(a, classes) for a in (SIZE, COLOR) if said[a]]
    words.append(_value(SHAPE, classes) if said[SHAPE] else "shape")
    words += [TAILS[a].format(_value(a, classes)) for a in order if said[a]]
    return " ".join(words)


def full_caption(classes: Ints) -> str:
    """The caption that states all attributes."""
    return caption(classes, np.ones(len(NAMES), np.bool_))


def shuffled_order(rng: np.random.Generator) -> tuple[int, ...]:
    """A random order of the phrases at the end."""
    return tuple(int(i) for i in rng.permutation(list(TAILS)))


def _value(attribute: int, classes: Ints) -> str:
    return ATTRIBUTES[NAMES[attribute]][int(classes[attribute])]
