"""Writes words into the fields: expands the prompt, and writes questions for it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.components import Component

from dualprocess.schemas import (
    DEFAULT_EXPANSION_INSTRUCTIONS,
    DEFAULT_QUESTION_INSTRUCTIONS,
    ExpansionRequest,
    ModelList,
    Question,
    QuestionsRequest,
)
from services.orchestrator.ui import choices, spec
from services.orchestrator.ui.faults import EXPECTED, NOTHING, Shown, fault, faults_of
from services.orchestrator.ui.fields import SCOPE
from services.orchestrator.ui.pieces import piece
from services.orchestrator.ui.render import html
from services.orchestrator.ui.visitor import connected

#: The page waits this many seconds for a writer; after that the writer's job goes on by itself.
_WAIT_SECONDS = 120.0
_ENDPOINT = ""


@dataclass(frozen=True)
class Words:
    expand: gr.Button
    write: gr.Button
    #: Why no writer can be asked; ``None`` if one can.
    reason: gr.HTML
    writer: gr.Dropdown
    count: gr.Slider
    expanding: gr.Textbox
    questioning: gr.Textbox

    @property
    def offered(self) -> list[Any]:
        return [self.expand, self.write, self.reason, self.writer]


def build() -> Words:
    with gr.Row(elem_classes="dp-words"):
        expand = gr.Button("Expand my prompt", size="sm", elem_id=f"{SCOPE}-expand")
        write = gr.Button("Write questions for me", size="sm", elem_id=f"{SCOPE}-write")
    reason = piece(f"{SCOPE}-no-words")
    with gr.Accordion("Writer and instructions", open=False, elem_classes="dp-section"):
        with gr.Row():
            writer = gr.Dropdown(allow_custom_value=True, label="Writer", elem_id=f"{SCOPE}-writer")
            count = gr.Slider(2, 10, 5, step=1, label="Questions", info="at most")
        expanding = gr.Textbox(
            DEFAULT_EXPANSION_INSTRUCTIONS,
            label="Instructions for expanding a prompt",
            lines=3,
            elem_id=f"{SCOPE}-expanding",
        )
        questioning = gr.Textbox(
            DEFAULT_QUESTION_INSTRUCTIONS,
            label="Instructions for writing questions",
            lines=3,
            elem_id=f"{SCOPE}-questioning",
        )
    return Words(expand, write, reason, writer, count, expanding, questioning)


def wire(
    words: Words,
    prompt: Component,
    generator: Component,
    questions: Component,
    faults: gr.HTML,
) -> None:
    words.expand.click(
        expanded,
        [prompt, generator, words.writer, words.expanding],
        [prompt, faults],
        show_progress="minimal",
    )
    words.write.click(
        written,
        [prompt, questions, words.writer, words.count, words.questioning],
        [questions, faults],
        show_progress="minimal",
    )


def offered(listed: ModelList) -> list[Any]:
    """Updates for ``Words.offered``: the writers, or why there is none."""
    able = [vlm for vlm in listed.vlms if vlm.writes]
    menu = [(f"{listed.writer} · language model", _ENDPOINT)] if listed.writer else []
    menu += choices.models(able)
    ready = listed.writer is not None or any(vlm.live_workers for vlm in able)
    return [
        gr.update(interactive=ready),
        gr.update(interactive=ready),
        "" if ready else html("no_words", able=[vlm.name for vlm in able]),
        gr.update(choices=menu, value=menu[0][1] if menu else None),
    ]


async def expanded(
    request: gr.Request, prompt: str, generator: str | None, writer: str | None, instructions: str
) -> tuple[Any, Shown]:
    """The expanded prompts, and what went wrong."""
    lines = [line for line in (prompt or "").splitlines() if line.strip()] or [""]
    try:
        wanted = [
            ExpansionRequest.model_validate(
                {
                    "prompt": line,
                    "generator": generator or None,
                    "instructions": instructions,
                    **_by(writer),
                }
            )
            for line in lines
        ]
        async with connected(request) as client:
            said = await asyncio.gather(*(client.expansion(one) for one in wanted))
    except EXPECTED as error:
        return gr.skip(), _faults(error, "expanding")
    doubts = " ".join(sentence for _, told in said for sentence in told)
    shown = fault("The prompt may be too long", prompt=doubts) if doubts else NOTHING
    return "\n".join(" ".join(text.split()) for text, _ in said), shown


async def written(
    request: gr.Request,
    prompt: str,
    rows: Sequence[Mapping[str, Any]] | None,
    writer: str | None,
    count: float,
    instructions: str,
) -> tuple[Any, Shown]:
    """The table with the new questions added, and what went wrong."""
    kept = [row for row in rows or [] if (row.get("question") or "").strip()]
    data: dict[str, Any] = {
        "prompt": (prompt or "").partition("\n")[0],
        "count": int(count),
        "instructions": instructions,
        **_by(writer),
    }
    if kept:
        first = spec.question(kept[0])
        drawing = first.pop("visual_prompt", None)
        first.pop("weight", None)
        data["first"] = {**first, "on_drawing": drawing is not None}
        data |= {"visual_prompt": drawing} if drawing else {}
    try:
        async with connected(request) as client:
            said = await client.write_questions(QuestionsRequest.model_validate(data))
    except EXPECTED as error:
        return gr.skip(), _faults(error, "questioning")
    return _joined(kept, said), NOTHING


def _joined(kept: Sequence[Mapping[str, Any]], said: Sequence[Question]) -> list[Mapping[str, Any]]:
    """The visitor's own questions, then those that were written."""
    own = {row["question"].strip().casefold() for row in kept}
    new = [one for one in said if one.question.casefold() not in own]
    return [*kept, *(spec.row(one) for one in new)]


def _by(writer: str | None) -> dict[str, Any]:
    return {"vlm": writer, "wait": _WAIT_SECONDS} if writer else {"wait": _WAIT_SECONDS}


def _faults(error: Exception, instructions: str) -> Shown:
    """The faults under the names of the page's fields, where the teacher is ``vlm``."""
    shown = faults_of(error)
    renamed = {"vlm": "writer", "instructions": instructions, "first": "questions.0"}
    for one in shown["fields"]:
        head, dot, rest = one["field"].partition(".")
        one["field"] = renamed.get(head, head) + dot + rest
    return shown
