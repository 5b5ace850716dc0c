"""The Compare tab: two jobs side by side. What differs between them comes first."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import gradio as gr

from dualprocess.schemas import Job, Question, ResolvedJobSpec, VisualPrompt
from services.orchestrator.ui import choices, panel, settings, watch
from services.orchestrator.ui.curves import Chart
from services.orchestrator.ui.pieces import piece
from services.orchestrator.ui.render import html
from services.orchestrator.ui.visitor import visiting

_EMPTY = html("compare", sides=[], differences=[])


@dataclass(frozen=True)
class Compare:
    left: gr.Dropdown
    right: gr.Dropdown


@dataclass(frozen=True)
class Side:
    job: Job
    title: str
    teachers: str
    charts: list[Chart]
    pairs: list[tuple[int, str, str]]


def build() -> Compare:
    with gr.Row():
        left = gr.Dropdown(allow_custom_value=True, label="One job", elem_id="compare-left")
        right = gr.Dropdown(allow_custom_value=True, label="Another job", elem_id="compare-right")
    shown = piece("compare", _EMPTY)
    for menu in (left, right):
        menu.change(_compared, [left, right], [shown], show_progress="hidden")
    return Compare(left, right)


async def offered(request: gr.Request, left: str | None, right: str | None) -> list[Any]:
    """Both menus. The two newest jobs are chosen, unless others were."""
    async with visiting(request) as client:
        jobs = choices.ended(await choices.optimise_jobs(client))
    menu = [(choices.label(job), job.id) for job in jobs]
    newest = [job.id for job in jobs]
    there = set(newest)
    chosen = [
        one if one in there else newest[at] if len(newest) > at else None
        for at, one in enumerate((left, right))
    ]
    return [gr.update(choices=menu, value=value) for value in chosen]


async def _compared(request: gr.Request, left: str | None, right: str | None) -> str:
    if not left or not right:
        return _EMPTY
    async with visiting(request) as client:
        jobs = [await client.job(one) for one in (left, right)]
        told = [await watch.finished(client, job) for job in jobs]
        sides = [
            Side(
                job,
                panel.title(job),
                panel.teachers(job),
                panel.charts(job, progress, told),
                await panel.pairs(client, job),
            )
            for job, progress in zip(jobs, told, strict=True)
        ]
    return html("compare", sides=sides, differences=_differences(*(side.job for side in sides)))


def _differences(left: Job, right: Job) -> list[tuple[str, str, str]]:
    """Name, left value and right value of each setting in which they differ."""
    sides = [_settings(job.spec) for job in (left, right) if isinstance(job.spec, ResolvedJobSpec)]
    if len(sides) < 2:
        return []
    one, other = sides
    return [(name, one[name], other[name]) for name in one if one[name] != other[name]]


def _settings(spec: ResolvedJobSpec) -> dict[str, str]:
    values: dict[str, Any] = {
        "Prompt": "; ".join(spec.prompts),
        "Questions": "; ".join(_asked(one) for one in spec.questions),
        "Generator": spec.generator,
        "Teacher": ", ".join(f"{use.name} × {use.weight:g}" for use in spec.vlm),
        "Judge": spec.judge,
    }
    shown = settings.of_spec(spec)
    values |= {one.label: shown[one.path] for one in settings.SETTINGS if one.path in shown}
    return {name: "–" if value in (None, "") else str(value) for name, value in values.items()}


def _asked(one: Question) -> str:
    weight = "" if one.weight == 1 else f" × {one.weight:g}"
    return f"{one.question} {one.answer}{_drawn(one.visual_prompt)}{weight}"


def _drawn(drawing: VisualPrompt | None) -> str:
    """A text for a drawing; different drawings have different texts."""
    if drawing is None:
        return ""
    return f" (drawing {hashlib.sha256(drawing.image).hexdigest()[:6]}, {drawing.mode})"
