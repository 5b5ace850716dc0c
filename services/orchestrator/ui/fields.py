"""The fields of the Teach tab, and how they are read and filled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.components import Component

from services.orchestrator.ui import guard
from services.orchestrator.ui.guard import GuardButtons
from services.orchestrator.ui.pieces import heading
from services.orchestrator.ui.render import asset
from services.orchestrator.ui.settings import GROUPS, GUARD, SETTINGS

SCOPE = "teach"

#: Fields that are visible, with their faults, while the settings are folded.
UNFOLDED = frozenset({"prompt", "prompts", "questions", "generator", "vlm", "body"})


@dataclass(frozen=True)
class Fields:
    """The components by their paths in a ``JobSpec``, in a fixed order."""

    by_path: Mapping[str, Component]

    @property
    def components(self) -> list[Component]:
        return list(self.by_path.values())

    def read(self, values: Sequence[Any]) -> dict[str, Any]:
        return dict(zip(self.by_path, values, strict=True))

    def filled(self, values: Mapping[str, Any]) -> list[Any]:
        """An update for each component. Components without a value in ``values`` stay as they
        are."""
        return [values.get(path, gr.skip()) for path in self.by_path]


def prompt() -> gr.Textbox:
    return gr.Textbox(
        label="Prompt",
        info="what the images show; several lines are several prompts",
        placeholder="a circle",
        lines=2,
        max_lines=6,
        elem_id=f"{SCOPE}-prompt",
    )


def questions() -> gr.HTML:
    return gr.HTML(
        value=[],
        html_template="",
        js_on_load=asset("questions.js"),
        apply_default_css=False,
        elem_id=f"{SCOPE}-questions",
    )


def generator() -> gr.Dropdown:
    return gr.Dropdown(
        allow_custom_value=True,
        label="Generator",
        info="the generator that learns",
        elem_id=f"{SCOPE}-generator",
    )


def teachers() -> gr.Dropdown:
    return gr.Dropdown(
        allow_custom_value=True,
        label="Teacher",
        info="the VLM that answers; several share the work",
        multiselect=True,
        elem_id=f"{SCOPE}-vlm",
    )


def judge() -> gr.Dropdown:
    return gr.Dropdown(
        allow_custom_value=True,
        label="Judge",
        info="another VLM that only scores: if it disagrees, the LoRA fooled its teacher",
        elem_id=f"{SCOPE}-judge",
    )


def weights() -> gr.Textbox:
    return gr.Textbox(
        label="Weights of several teachers",
        info="one number for each, in the same order, like 2, 1; empty: all equal",
        max_lines=1,
        elem_id=f"{SCOPE}-weights",
    )


def settings() -> tuple[dict[str, Component], GuardButtons]:
    """All settings, in groups, and the buttons of the guard."""
    built: dict[str, Component] = {}
    for group, about in GROUPS.items():
        heading(group, about)
        with gr.Row(elem_classes="dp-settings"):
            for setting in SETTINGS:
                if setting.group == group:
                    identity = f"{SCOPE}-{setting.path.replace('.', '-')}"
                    built[setting.path] = setting.build(identity)
        if group == GUARD:
            buttons = guard.build(SCOPE)
    return built, buttons
