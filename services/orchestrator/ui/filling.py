"""Fills the fields of the Teach tab: from a template, a generator's defaults or an earlier job."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import gradio as gr

from dualprocess import ApiError, AsyncClient
from dualprocess.schemas import Job, ModelList, ResolvedJobSpec
from services.orchestrator.ui import choices, guard, settings, spec, starts, words
from services.orchestrator.ui.faults import EXPECTED, NOTHING, Shown, faults_of
from services.orchestrator.ui.fields import Fields
from services.orchestrator.ui.starts import Starts
from services.orchestrator.ui.templates import TEMPLATES, TINY_PAIR, Template
from services.orchestrator.ui.visitor import connected, visiting
from services.orchestrator.ui.words import Words

#: The template that a first visitor sees, if the tiny pair is there to learn it.
FIRST = "red-circle"
_SIDE = 512
_SMALLEST_SIDE, _LARGEST_SIDE = 16, 4096


@dataclass(frozen=True)
class Filling:
    fields: Fields
    starts: Starts
    words: Words

    @property
    def outputs(self) -> list[Any]:
        return [self.starts.cards, *self.starts.shown_components, *self.fields.components]

    async def choose(self, request: gr.Request, name: str, *values: Any) -> list[Any]:
        """A card was clicked. ``values``: the generator, the controls, then width and height."""
        async with visiting(request) as client:
            return self._template(TEMPLATES[name], await client.models(), values)

    async def opened(self, request: gr.Request, job_id: str, *values: Any) -> list[Any]:
        """The page was opened: the menus, and the job of its address or a first example.

        After ``outputs`` come the writers, and what went wrong. If the job does not exist, the page
        is that of a first visit.
        """
        nothing = [gr.skip() for _ in [*self.outputs, *self.words.offered]]
        try:
            async with connected(request) as client:
                listed = await client.models()
                job, fault = await _addressed(client, job_id)
        except EXPECTED as error:
            return [*nothing, faults_of(error)]
        updates = self._filled(job) if job else self._first(listed, values)
        return [*self._with_menus(updates, listed), *words.offered(listed), fault]

    def reopened(self, job: Job) -> list[Any]:
        """All fields as they were when the job was made."""
        return self._filled(job)

    async def defaults(self, request: gr.Request, generator: str) -> list[Any]:
        """Another generator was chosen."""
        return self.fields.filled(await preset(request, generator))

    def _first(self, listed: ModelList, values: tuple[Any, ...]) -> list[Any]:
        generator, vlm = choices.live_pair(listed)
        if (generator, vlm) == TINY_PAIR:
            return self._template(TEMPLATES[FIRST], listed, values)
        begin: dict[str, Any] = {"generator": generator, "vlm": [vlm] if vlm else []}
        begin["questions"] = [{"question": "", "answer": "Yes", "drawing": None, "mode": "solid"}]
        if generator:
            begin |= _defaults(listed, generator)
        return self._all(self.fields.filled(begin))

    def _template(
        self, template: Template, listed: ModelList, values: tuple[Any, ...]
    ) -> list[Any]:
        generator, *controls, width, height = values
        filled: dict[str, Any] = {"prompt": template.prompt, "name": template.title.lower()}
        # Another card may have left its guard.
        filled |= guard.of(_defaults(listed, generator))
        if template.tiny:
            filled |= {"generator": TINY_PAIR[0], "vlm": [TINY_PAIR[1]], "judge": None}
            filled |= _defaults(listed, TINY_PAIR[0])
            filled |= {f"guard.{name}": value for name, value in template.guard.items()}
            width, height = filled.get("image.width"), filled.get("image.height")
        chosen = starts.chosen(controls)
        chosen = replace(chosen, points=template.marks, places=template.marks)
        filled["questions"] = template.questions(size(width, height), chosen)
        return [template.name, *self.starts.shown(template), *self.fields.filled(filled)]

    def _filled(self, job: Job) -> list[Any]:
        if not isinstance(job.spec, ResolvedJobSpec):
            return self._all([gr.skip() for _ in self.fields.components])
        return self._all(self.fields.filled(spec.shown(job.spec)))

    def _all(self, fields: list[Any]) -> list[Any]:
        """These fields, and no chosen template."""
        hidden = [gr.update(visible=False) for _ in self.starts.groups]
        return ["", *hidden, gr.skip(), gr.skip(), gr.skip(), *fields]

    def _with_menus(self, updates: list[Any], listed: ModelList) -> list[Any]:
        vlms = choices.models(listed.vlms)
        menus = {
            "generator": choices.models(listed.generators),
            "vlm": vlms,
            "judge": [("none", ""), *vlms],
        }
        first = len(self.outputs) - len(self.fields.components)
        for at, path in enumerate(self.fields.by_path, first):
            if path in menus:
                value = updates[at]
                kept = {} if isinstance(value, dict) and value.get("__type__") else {"value": value}
                updates[at] = gr.update(choices=menus[path], **kept)
        return updates


async def _addressed(client: AsyncClient, job_id: str) -> tuple[Job | None, Shown]:
    """The job of the page's address, or why it can't be shown."""
    try:
        return await client.job(job_id) if job_id else None, NOTHING
    except ApiError as error:
        return None, faults_of(error)


def size(width: float | None, height: float | None) -> tuple[int, int]:
    """Width and height of a drawing for an image of this size, within the limits of drawings."""
    wanted = (int(width or _SIDE), int(height or _SIDE))
    wide, high = (min(max(side, _SMALLEST_SIDE), _LARGEST_SIDE) for side in wanted)
    return wide, high


def redrawn(name: str, rows: list[dict[str, Any]] | None, *values: Any) -> Any:
    """The questions after a control of the chosen template's drawing was moved."""
    *controls, width, height = values
    template = TEMPLATES.get(name)
    if template is None or template.control is None or not rows:
        return gr.skip()
    (made,) = template.questions(size(width, height), starts.chosen(controls))
    return [{**rows[0], "drawing": made["drawing"]}, *rows[1:]]


async def preset(request: gr.Request, generator: str) -> dict[str, Any]:
    """The values of the generator's preset, by path."""
    async with visiting(request) as client:
        return _defaults(await client.models(), generator)


def _defaults(listed: ModelList, generator: str) -> dict[str, Any]:
    found = (info for info in listed.generators if info.name == generator)
    return next((settings.defaults(info) for info in found), {})
