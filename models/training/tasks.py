"""The tasks of the tiny pair, each with a measure of success by pixels.

Without torch, so that any program can measure its pictures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from dualprocess.schemas import GuardOptions
from models.training.measure import Image, Measured, measure
from models.training.questions import LINE_QUESTION, PALETTE_QUESTION
from models.training.visual_prompts import Drawing, line, palette
from models.training.world import FILL_RGB, GROUND_RGB, SKY_RGB

LINE_ROW = 46
LINE_REACH = 4.0  # pixels
_RED, _DARK = 0, 1


@dataclass(frozen=True)
class Task:
    """A job in one dataclass. `visual_prompt` (64, 64, 3) is drawn over the image in solid mode for
    each question. `asks` are the measures that the task is about; the others should not change.
    `guard` is the job's guard; fields that it leaves out are the preset's."""

    name: str
    prompt: str
    questions: tuple[tuple[str, str], ...]
    goal: Callable[[Measured], bool]
    asks: frozenset[str]
    visual_prompt: Drawing | None = None
    guard: GuardOptions = field(default_factory=GuardOptions)

    def success(self, image: Image) -> bool:
        """Whether an image (64, 64, 3) uint8 is still one whole shape of the prompt's kind in the
        world, and shows what was asked for."""
        measured = measure(image)
        if measured is None or measured.shape not in self.prompt:
            return False
        return self.goal(measured)


def _has_palette(measured: Measured) -> bool:
    return measured.color == "red" and measured.background == "dark"


def _on_line(measured: Measured) -> bool:
    return abs(measured.horizon_y - LINE_ROW) <= LINE_REACH


_SWATCHES = np.stack([SKY_RGB[_DARK], FILL_RGB[_RED], GROUND_RGB[_DARK]])

_ALL = (
    Task(
        "red-circle",
        "a circle",
        (("Is the circle red?", "Yes"),),
        lambda m: m.color == "red",
        frozenset({"color"}),
    ),
    Task(
        "yellow-circle",
        "a circle",
        (("Is the circle yellow?", "Yes"),),
        lambda m: m.color == "yellow",
        frozenset({"color"}),
    ),
    Task(
        "green-square",
        "a square",
        (("Is the square green?", "Yes"),),
        lambda m: m.color == "green",
        frozenset({"color"}),
    ),
    Task(
        "blue-square",
        "a square",
        (("Is the square blue?", "Yes"),),
        lambda m: m.color == "blue",
        frozenset({"color"}),
    ),
    Task(
        "dark-background",
        "a circle",
        (("Is the background dark?", "Yes"),),
        lambda m: m.background == "dark",
        frozenset({"luminance"}),
    ),
    Task(
        "low-horizon",
        "a circle",
        (("Is the horizon low?", "Yes"),),
        lambda m: m.horizon == "low",
        frozenset({"horizon_y"}),
    ),
    Task(
        "thick-outline",
        "a circle",
        (("Is the outline thick?", "Yes"),),
        lambda m: m.outline == "thick",
        frozenset({"thickness"}),
        guard=GuardOptions(margin=0.9, worst_case=0.02),
    ),
    Task(
        "horizon-line",
        "a circle",
        ((LINE_QUESTION, "Yes"),),
        _on_line,
        frozenset({"horizon_y"}),
        line(LINE_ROW),
        guard=GuardOptions(anchor=4),
    ),
    Task(
        "palette",
        "a circle",
        ((PALETTE_QUESTION, "Yes"),),
        _has_palette,
        frozenset({"color", "luminance"}),
        palette((_SWATCHES * 255).astype(np.uint8)),
    ),
)
TASKS: dict[str, Task] = {task.name: task for task in _ALL}
