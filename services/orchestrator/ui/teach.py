"""The Teach tab: the fields of a job on one side, the running job on the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.components import Component

from services.orchestrator.ui import fields, guard, panel, running, starts, words
from services.orchestrator.ui.fields import Fields
from services.orchestrator.ui.filling import Filling, preset, redrawn
from services.orchestrator.ui.pieces import fault_box, heading, piece
from services.orchestrator.ui.render import asset, html
from services.orchestrator.ui.running import Running
from services.orchestrator.ui.words import Words


@dataclass(frozen=True)
class Buttons:
    look: gr.Button
    best: gr.Button
    teach: gr.Button
    stop: gr.Button
    afresh: gr.Button


@dataclass(frozen=True)
class Teach:
    filling: Filling
    faults: gr.HTML
    #: The job that the panel shows, as ``running.asked`` writes it, or its id.
    job: gr.Textbox
    #: The panel's event. It lasts until the job ends, or until it is cancelled.
    watching: Any
    #: The end of the panel, with buttons that lead to the Use tab.
    outcome: gr.HTML
    #: The fields that decide how the others are filled.
    chosen_by: list[Component]


def build() -> Teach:
    with gr.Row(elem_classes="dp-teach"):
        with gr.Column(scale=5, min_width=320, elem_classes="dp-form"):
            gr.HTML(html("welcome"), js_on_load=asset("welcome.js"), apply_default_css=False)
            with gr.Accordion("Start from an example", elem_classes="dp-section"):
                begun = starts.build()
            by_path, more, writing = _fields()
            read = Fields(by_path)
            faults = fault_box(fields.SCOPE)
            with gr.Row(elem_classes="dp-actions"):
                buttons = Buttons(
                    gr.Button("See what it draws now", elem_id="teach-look"),
                    gr.Button(f"Try the best of {running.BEST_OF} first", elem_id="teach-best"),
                    gr.Button("Teach it", variant="primary", elem_id="teach-start"),
                    gr.Button("Stop", variant="stop", visible=False, elem_id="teach-stop"),
                    gr.Button("Start afresh", visible=False, elem_id="teach-afresh"),
                )
            drawn = piece("teach-drawn")
        with gr.Column(scale=6, min_width=320, elem_classes="dp-panel"):
            job = gr.Textbox(visible="hidden", elem_id="dp-job", label="Job")
            shown = [
                piece("dp-panel-head", panel.EMPTY),
                piece("dp-panel-pictures"),
                piece("dp-panel-curves"),
                gr.HTML(
                    "",
                    js_on_load=asset("cards.js"),
                    apply_default_css=False,
                    elem_id="dp-panel-outcome",
                ),
            ]
    watching = _wire_job(read, job, shown, [faults, more], drawn, buttons)
    words.wire(writing, by_path["prompt"], by_path["generator"], by_path["questions"], faults)
    filling = Filling(read, begun, writing)
    return Teach(filling, faults, job, watching, shown[-1], _wire_fields(filling))


def _fields() -> tuple[dict[str, Component], gr.Accordion, Words]:
    """The fields by path, the accordion that holds most of them, and the writers for some."""
    by_path: dict[str, Component] = {"prompt": fields.prompt(), "questions": fields.questions()}
    writing = words.build()
    with gr.Row():
        by_path["generator"] = fields.generator()
        by_path["vlm"] = fields.teachers()
    with gr.Accordion("All settings", open=False, elem_classes="dp-section") as more:
        heading("Teachers and judge")
        with gr.Row(elem_classes="dp-settings"):
            by_path["weights"] = fields.weights()
            by_path["judge"] = fields.judge()
        built, buttons = fields.settings()
    by_path |= built
    guard.wire(buttons, by_path, preset)
    return by_path, more, writing


def _wire_job(
    read: Fields,
    job: gr.Textbox,
    shown: list[gr.HTML],
    answered: list[Any],
    drawn: gr.HTML,
    buttons: Buttons,
) -> Any:
    act = Running(read)
    # This must be first: events that come after a view of a job wait for its end.
    job.change(None, [job], js="(job) => { dualprocess.remember(job.split(' ')[0]); }")
    watching = job.change(
        running.watching,
        [job],
        [*shown, buttons.stop, buttons.afresh, answered[0]],
        show_progress="hidden",
    )
    buttons.teach.click(
        act.start, read.components, [job, *answered], show_progress="hidden", cancels=[watching]
    )
    for button, look in ((buttons.look, act.look), (buttons.best, act.best)):
        button.click(look, read.components, [drawn, *answered], show_progress="minimal")
    buttons.stop.click(running.stop, [job], answered[:1], show_progress="hidden")
    buttons.afresh.click(
        lambda: ("", ""), None, [job, drawn], show_progress="hidden", cancels=[watching]
    )
    return watching


def _wire_fields(filling: Filling) -> list[Component]:
    begun, by_path = filling.starts, filling.fields.by_path
    controls = [*begun.controls, by_path["image.width"], by_path["image.height"]]
    generator = by_path["generator"]
    assert isinstance(generator, gr.Dropdown)
    begin = [generator, *controls]
    begun.cards.choose(
        filling.choose, [begun.cards, *begin], filling.outputs, show_progress="hidden"
    )
    generator.input(
        filling.defaults, [generator], filling.fields.components, show_progress="hidden"
    )
    redraw: dict[str, Any] = {
        "fn": redrawn,
        "inputs": [begun.cards, by_path["questions"], *controls],
        "outputs": [by_path["questions"]],
        "show_progress": "hidden",
    }
    moved = [begun.points.move, begun.places.move, begun.horizon.input, begun.weight.input]
    for event in [*moved, *(colour.input for colour in begun.colours)]:
        event(**redraw, trigger_mode="always_last")
    begun.labels.input(
        starts.relabelled, [begun.labels, begun.places], [begun.places], show_progress="hidden"
    ).then(**redraw)
    return begin
