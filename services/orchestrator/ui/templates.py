"""Example tasks: those of the tiny world, and the six of the paper."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.orchestrator.ui import drawings
from services.orchestrator.ui.drawings import Mark

#: Kinds of controls for a template's drawing. At most one is shown.
PALETTE, HORIZON, WEIGHT, POINTS, COMPOSITION = "palette", "horizon", "weight", "points", "places"

TINY_PAIR = ("tiny-flux", "tiny-idefics2")


@dataclass(frozen=True)
class Controls:
    """A visitor's choices for a drawing."""

    colours: Sequence[str] = ("#2b3549", "#e51919", "#4f4438")
    #: The distance from the top, from 0 to 1.
    horizon: float = 0.72
    #: As a share of the image's height.
    weight: float = 0.04
    points: Sequence[Mark] = ()
    places: Sequence[Mark] = ()


@dataclass(frozen=True)
class Template:
    name: str
    title: str
    prompt: str
    question: str
    #: One sentence that says what the LoRA learns.
    about: str
    control: str | None = None
    #: Made for the tiny pair, which needs no download and no GPU.
    tiny: bool = False
    #: The marks of a drawing before anything is moved.
    marks: Sequence[Mark] = ()
    #: What its guard needs other than the preset's.
    guard: Mapping[str, float] = field(default_factory=dict)

    def questions(self, size: tuple[int, int], controls: Controls) -> list[dict[str, Any]]:
        """The rows of the table of questions, with the drawing at ``size``."""
        drawing = None
        if self.control is not None:
            drawing = drawings.data_url(_DRAW[self.control](size, controls))
        return [{"question": self.question, "answer": "Yes", "drawing": drawing, "mode": "solid"}]


_DRAW: dict[str, Callable[[tuple[int, int], Controls], bytes]] = {
    PALETTE: lambda size, chosen: drawings.palette(size, chosen.colours),
    HORIZON: lambda size, chosen: drawings.horizon(size, chosen.horizon),
    WEIGHT: lambda size, chosen: drawings.line_weight(size, chosen.weight),
    POINTS: lambda size, chosen: drawings.points(size, chosen.points),
    COMPOSITION: lambda size, chosen: drawings.composition(size, chosen.places),
}

_PALETTE_QUESTION = (
    "Do the predominant colors of the image match the color palette overlaid at the bottom?"
)
_HORIZON_QUESTION = "Is the overlaid red line aligned with the horizon of the scene?"


def _tiny(
    name: str, title: str, prompt: str, question: str, about: str, **guard: float
) -> Template:
    return Template(name, title, prompt, question, about, tiny=True, guard=guard)


_ALL = (
    _tiny(
        "red-circle",
        "Red circle",
        "a circle",
        "Is the circle red?",
        "Circles of any colour turn red.",
    ),
    _tiny(
        "yellow-circle",
        "Yellow circle",
        "a circle",
        "Is the circle yellow?",
        "Circles of any colour turn yellow.",
    ),
    _tiny(
        "green-square",
        "Green square",
        "a square",
        "Is the square green?",
        "Squares of any colour turn green.",
    ),
    _tiny(
        "blue-square",
        "Blue square",
        "a square",
        "Is the square blue?",
        "Squares of any colour turn blue.",
    ),
    _tiny(
        "dark-background",
        "Dark background",
        "a circle",
        "Is the background dark?",
        "The scene around the circle turns dark.",
    ),
    _tiny(
        "low-horizon",
        "Low horizon",
        "a circle",
        "Is the horizon low?",
        "The horizon comes down to the lower third.",
    ),
    _tiny(
        "thick-outline",
        "Thick outline",
        "a circle",
        "Is the outline thick?",
        "Circles get a thick outline.",
        margin=0.9,
        worst_case=0.02,
    ),
    Template(
        "tiny-horizon",
        "Horizon line",
        "a circle",
        _HORIZON_QUESTION,
        "A drawn line says where the horizon should be.",
        HORIZON,
        tiny=True,
        guard={"anchor": 4},
    ),
    Template(
        "tiny-palette",
        "Palette",
        "a circle",
        _PALETTE_QUESTION,
        "Three colours say how sky, shape and ground should look.",
        PALETTE,
        tiny=True,
    ),
    Template(
        "palette",
        "Colour palette",
        "a reading corner with an armchair by the window",
        _PALETTE_QUESTION,
        "The scene takes the three colours that you pick.",
        PALETTE,
    ),
    Template(
        "line-weight",
        "Line weight",
        "an ink drawing of a sailing boat",
        "Does the line weight of the image match the overlaid red line?",
        "Drawn lines become as thick as yours.",
        WEIGHT,
    ),
    Template(
        "horizon",
        "Horizon",
        "a lighthouse at the sea",
        _HORIZON_QUESTION,
        "The horizon goes where your line is.",
        HORIZON,
    ),
    Template(
        "relative-depth",
        "Relative depth",
        "a street café with two tables",
        "Is Point B much closer to the camera than Point A?",
        "What is at B comes closer than what is at A.",
        POINTS,
        marks=(Mark("A", 0.3, 0.4), Mark("B", 0.7, 0.7)),
    ),
    Template(
        "composition",
        "Composition",
        "a fox under the moon",
        "Does the composition of the image match the overlaid red instructions?",
        "Things appear where you write their names.",
        COMPOSITION,
        marks=(Mark("moon", 0.75, 0.22), Mark("fox", 0.3, 0.72)),
    ),
    Template(
        "commonsense",
        "Commonsense",
        "a glass of water with oil poured into it",
        "Are there visible layers or separation between the oil and water?",
        "Facts that the prompt alone does not get into the image.",
    ),
)
TEMPLATES: dict[str, Template] = {template.name: template for template in _ALL}
