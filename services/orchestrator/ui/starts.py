"""The cards of the templates, and the controls that make a template's drawing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.components import Component

from services.orchestrator.ui import templates
from services.orchestrator.ui.drawings import Mark
from services.orchestrator.ui.render import asset, html
from services.orchestrator.ui.templates import TEMPLATES, Controls, Template

_DEFAULT = Controls()
_COLOUR_NAMES = ("Left", "Middle", "Right")


@dataclass(frozen=True)
class Starts:
    cards: gr.HTML
    #: One group for each kind of control; at most one is shown.
    groups: dict[str, gr.Group]
    colours: list[gr.ColorPicker]
    horizon: gr.Slider
    weight: gr.Slider
    points: gr.HTML
    places: gr.HTML
    labels: gr.Textbox

    @property
    def controls(self) -> list[Component]:
        return [*self.colours, self.horizon, self.weight, self.points, self.places]

    def shown(self, template: Template) -> list[Any]:
        """Updates for the groups, for both fields of marks, and for the labels."""
        groups = [gr.update(visible=kind == template.control) for kind in self.groups]
        marks = [{"label": mark.label, "x": mark.x, "y": mark.y} for mark in template.marks]
        points = marks if template.control == templates.POINTS else gr.skip()
        if template.control != templates.COMPOSITION:
            return [*groups, points, gr.skip(), gr.skip()]
        return [*groups, points, marks, ", ".join(mark.label for mark in template.marks)]

    @property
    def shown_components(self) -> list[Any]:
        return [*self.groups.values(), self.points, self.places, self.labels]


def build() -> Starts:
    tiny = [one for one in TEMPLATES.values() if one.tiny]
    paper = [one for one in TEMPLATES.values() if not one.tiny]
    named = (
        ("For the tiny models, on any laptop", tiny),
        ("The paper's tasks, for full-size models", paper),
    )
    cards = gr.HTML(
        value="",
        html_template=html("templates", groups=named),
        js_on_load=asset("templates.js"),
        apply_default_css=False,
        elem_id="teach-templates",
    )
    groups: dict[str, gr.Group] = {}
    with gr.Group(visible=False) as groups[templates.PALETTE], gr.Row():
        colours = [
            gr.ColorPicker(label=f"{name} colour", value=value, min_width=90)
            for name, value in zip(_COLOUR_NAMES, _DEFAULT.colours, strict=True)
        ]
    with gr.Group(visible=False) as groups[templates.HORIZON]:
        horizon = gr.Slider(
            0, 100, _DEFAULT.horizon * 100, step=1, label="Horizon", info="% from the top"
        )
    with gr.Group(visible=False) as groups[templates.WEIGHT]:
        weight = gr.Slider(
            0.5, 15, _DEFAULT.weight * 100, step=0.5, label="Line weight", info="% of the height"
        )
    with gr.Group(visible=False) as groups[templates.POINTS]:
        points = _marks("Drag A and B, or move them with the arrow keys.")
    with gr.Group(visible=False) as groups[templates.COMPOSITION]:
        labels = gr.Textbox(label="What goes where", info="commas between", max_lines=1)
        places = _marks("Drag each to its place, or move it with the arrow keys.")
    return Starts(cards, groups, colours, horizon, weight, points, places, labels)


def _marks(hint: str) -> gr.HTML:
    return gr.HTML(
        value=[],
        html_template=html("hint", hint=hint),
        js_on_load=asset("marks.js"),
        apply_default_css=False,
    )


def chosen(values: Sequence[Any]) -> Controls:
    """The values of the controls."""
    *colours, horizon, weight, points, places = values
    return Controls(
        [_css(one) for one in colours],
        horizon / 100,
        weight / 100,
        [Mark.read(mark) for mark in points or []],
        [Mark.read(mark) for mark in places or []],
    )


def relabelled(labels: str, marks: Sequence[dict[str, Any]] | None) -> list[dict[str, Any]]:
    """The marks with these labels. New marks are placed in a row."""
    names = [name.strip() for name in labels.split(",") if name.strip()][:8]
    known = {mark["label"]: mark for mark in marks or []}
    return [
        known.get(name, {"label": name, "x": (index + 0.5) / len(names), "y": 0.5})
        for index, name in enumerate(names)
    ]


def _css(colour: str) -> str:
    """The colour with whole numbers, as CSS and Pillow need it; Gradio sends rgba(12.5, 40.1, 9,
    1)."""
    if not colour.startswith("rgb"):
        return colour
    parts = colour.partition("(")[2].rstrip(")").split(",")[:3]
    return "#" + "".join(f"{min(max(round(float(part)), 0), 255):02x}" for part in parts)
