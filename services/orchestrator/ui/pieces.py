"""Parts that all tabs use."""

from __future__ import annotations

import gradio as gr

from services.orchestrator.ui.faults import NOTHING
from services.orchestrator.ui.render import asset, html


def piece(elem_id: str, value: str = "") -> gr.HTML:
    """A part of the page that the server renders."""
    return gr.HTML(value, js_on_load=None, apply_default_css=False, elem_id=elem_id)


def heading(text: str, about: str = "") -> gr.HTML:
    """The heading of a group of fields."""
    made = html("heading", text=text, about=about)
    return gr.HTML(made, js_on_load=None, apply_default_css=False)


def fault_box(scope: str) -> gr.HTML:
    return gr.HTML(
        value=NOTHING,
        html_template="",
        js_on_load=asset("faults.js"),
        apply_default_css=False,
        scope=scope,
    )
