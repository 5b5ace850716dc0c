"""The guard's buttons: turn all of it off, or set it as in the generator's preset."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.components import Component

from dualprocess.schemas import GuardSettings

_OFF = {f"guard.{name}": value for name, value in GuardSettings().model_dump().items()}


@dataclass(frozen=True)
class GuardButtons:
    off: gr.Button
    preset: gr.Button


def build(scope: str) -> GuardButtons:
    with gr.Row(elem_classes="dp-words"):
        return GuardButtons(
            gr.Button("Turn it all off", size="sm", elem_id=f"{scope}-guard-off"),
            gr.Button("As the generator's preset", size="sm", elem_id=f"{scope}-guard-preset"),
        )


def of(values: Mapping[str, Any]) -> dict[str, Any]:
    """The guard's fields among these, by path."""
    return {path: values[path] for path in _OFF if path in values}


def wire(
    buttons: GuardButtons, by_path: Mapping[str, Component], defaults: Callable[..., Any]
) -> None:
    """Connects the buttons. ``defaults`` returns a generator's values by path."""
    shown = [by_path[path] for path in _OFF]

    async def preset(request: gr.Request, generator: str) -> list[Any]:
        found = await defaults(request, generator)
        return [found.get(path, gr.skip()) for path in _OFF]

    buttons.off.click(lambda: list(_OFF.values()), None, shown, show_progress="hidden")
    buttons.preset.click(preset, [by_path["generator"]], shown, show_progress="hidden")
