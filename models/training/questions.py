"""Yes/No questions about scenes, of several kinds, in several wordings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.training.world import (
    ATTRIBUTES,
    NAMES,
    SHAPE,
    Ints,
)

POSTFIX = "Answer with Yes or No."
DESCRIBE = "Describe the image."
LINE_QUESTION = "Is the overlaid red line aligned with the horizon of the scene?"
PALETTE_QUESTION = (
    "Do the predominant colors of the image match the color palette overlaid at the bottom?"
)

WORDINGS: dict[str, tuple[str, ...]] = {
    "color": (
        "Is the {noun} {value}?",
        "Is the color of the {noun} {value}?",
        "Is there a {value} {noun}?",
    ),
    "shape": (
        "Is the shape a {value}?",
        "Is there a {value}?",
        "Is the object a {value}?",
        "Is this a {value}?",
    ),
    "size": ("Is the {noun} {value}?", "Is there a {value} {noun}?"),
    "horizontal": ("Is the {noun} on the {value}?", "Is the {noun} on the {value} side?"),
    "vertical": ("Is the {noun} at the {value}?", "Is the {noun} near the {value}?"),
    "outline": (
        "Is the outline {value}?",
        "Is the outline of the {noun} {value}?",
        "Does the {noun} have a {value} outline?",
    ),
    "background": ("Is the background {value}?", "Is the scene {value}?", "Is the image {value}?"),
    "horizon": ("Is the horizon {value}?", "Is there a {value} horizon?"),
}
ABOUT_THE_SHAPE = ("color", "shape", "size", "horizontal", "vertical", "outline")


@dataclass(frozen=True)
class Asked:
    """A question about one scene, and which value of its kind it names; None if it asks about a
    shape that isn't there."""

    text: str
    value: int | None
    yes: bool


def ask(rng: np.random.Generator, kind: str, classes: Ints, *, confuse_shape: float = 0.0) -> Asked:
    """A question of `kind` about one scene (8,); the answer is Yes with probability 1/2.

    With probability `confuse_shape` it names a shape that isn't there, and the answer is No.
    """
    values = ATTRIBUTES[kind]
    true = int(classes[NAMES.index(kind)])
    yes = bool(rng.random() < 0.5)
    value = true if yes else _other(rng, true, len(values))
    wording = _pick(rng, WORDINGS[kind])
    shapes = ATTRIBUTES["shape"]
    shape = int(classes[SHAPE])
    noun = _pick(rng, (shapes[shape],) * 3 + ("shape", "object"))
    if "{noun}" in wording and rng.random() < confuse_shape:
        noun = shapes[_other(rng, shape, len(shapes))]
        return Asked(_fill(wording, noun, values[value]), None, False)
    return Asked(_fill(wording, noun, values[value]), value, yes)


def every_question() -> list[str]:
    """All the questions that `ask` can write, and those of the visual prompts."""
    nouns = (*ATTRIBUTES["shape"], "shape", "object")
    asked = {
        _fill(wording, noun, value)
        for kind, wordings in WORDINGS.items()
        for wording in wordings
        for noun in nouns
        for value in ATTRIBUTES[kind]
    }
    return [*sorted(asked), LINE_QUESTION, PALETTE_QUESTION, DESCRIBE]


def _fill(wording: str, noun: str, value: str) -> str:
    if value == "middle":
        wording = "Is the horizon in the {value}?"
    text = wording.format(noun=noun, value=value)
    return text.replace(" a object", " an object")


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]


def _other(rng: np.random.Generator, true: int, count: int) -> int:
    return int((true + rng.integers(1, count)) % count)
