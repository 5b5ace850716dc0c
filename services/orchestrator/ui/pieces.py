"""Parts that every tab has."""

from __future__ import annotations

import gradio as gr

from services.orchestrator.ui.faults import NOTHING
from services.orchestrator.ui.render import asset


def piece(elem_id: str, value: str = "") -> gr.HTML:
    """A part of the page that the server renders."""
    return gr.HTML(value, js_on_load=None, apply_default_css=False, elem_id=elem_id)


def fault_box(scope: str) -> gr.HTML:
    return gr.HTML(
        value=NOTHING,
        html_template="",
        js_on_load=asset("faults.js"),
        apply_default_css=False,
        scope=scope,
    )
