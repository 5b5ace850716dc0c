"""The buttons of the Teach tab (look, teach, stop), and the panel that follows the job."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import gradio as gr

from dualprocess import AsyncClient
from dualprocess.schemas import Job, ResolvedImagesSpec
from services.orchestrator.ui import panel, pictures, spec, watch
from services.orchestrator.ui.faults import EXPECTED, NOTHING, Shown, faults_of
from services.orchestrator.ui.fields import UNFOLDED, Fields
from services.orchestrator.ui.render import html, percent
from services.orchestrator.ui.visitor import connected

#: How many pictures of the base model are drawn, to see what it can't do yet.
_BASE_PICTURES = 4
#: How many seeds are tried before a LoRA is taught.
BEST_OF = 16


@dataclass(frozen=True)
class Running:
    fields: Fields

    async def start(self, request: gr.Request, *values: Any) -> tuple[Any, ...]:
        """Submits the job. Returns its id, what went wrong, and whether the settings must be
        unfolded to show that."""
        try:
            wanted = spec.job_spec(self.fields.read(values))
            async with connected(request) as client:
                job = await client.submit(wanted)
        except EXPECTED as error:
            return gr.skip(), *_answer(error)
        return asked(job.id), NOTHING, gr.skip()

    async def look(self, request: gr.Request, *values: Any) -> tuple[Any, ...]:
        """Pictures of the base model with their scores; the other values are as in ``start``."""
        return await self._look(request, values, "Before it learns")

    async def best(self, request: gr.Request, *values: Any) -> tuple[Any, ...]:
        """The best pictures of many, as from ``look``."""
        heading = f"The best {_BASE_PICTURES} of {BEST_OF}, without a LoRA"
        return await self._look(request, values, heading, best_of=BEST_OF)

    async def _look(
        self, request: gr.Request, values: tuple[Any, ...], heading: str, best_of: int | None = None
    ) -> tuple[Any, ...]:
        try:
            fields = self.fields.read(values)
            wanted = spec.images_request(fields, _BASE_PICTURES, best_of)
            async with connected(request) as client:
                job = await client.generate(wanted)
                job = job if job.status.is_final else await client.wait(job.id)
                return await drawn(client, job, heading), NOTHING, gr.skip()
        except EXPECTED as error:
            return gr.skip(), *_answer(error)


def _answer(error: Exception) -> tuple[Shown, Any]:
    shown = faults_of(error)
    folded = any(one["field"].split(".")[0] not in UNFOLDED for one in shown["fields"])
    return shown, gr.update(open=True) if folded else gr.skip()


async def drawn(client: AsyncClient, job: Job, heading: str) -> str:
    """The pictures of an images job that has ended."""
    assert isinstance(job.spec, ResolvedImagesSpec)
    seeds = pictures.seeds(job)
    found = await pictures.shown(client, job, [f"image-{seed}.png" for seed in seeds])
    scores = {one.seed: one.probability.geometric_mean for one in job.scores.images}
    captions = [
        f"seed {seed} · {percent(scores[seed])}" if seed in scores else f"seed {seed}"
        for seed in seeds
    ]
    score = job.scores.lora or job.scores.base
    shown = list(zip(captions, found, strict=False))
    return html(
        "drawn",
        heading=heading,
        score=score,
        pictures=shown,
        drawn=len(job.spec.seeds),
        advice=job.base and job.base.advice,
        warnings=job.warnings,
    )


def asked(job_id: str) -> str:
    """A value that makes the panel show this job again, even if it shows it already."""
    return f"{job_id} {time.monotonic_ns()}"


async def stop(request: gr.Request, asked: str) -> Any:
    try:
        async with connected(request) as client:
            await client.cancel(asked.split()[0])
    except EXPECTED as error:
        return faults_of(error)
    return NOTHING


async def watching(request: gr.Request, asked: str) -> AsyncIterator[Any]:
    """Updates of the panel, the buttons Stop and Start afresh, and what went wrong, until the job
    ends."""
    hidden = gr.update(visible=False)
    job_id, *_ = asked.split() or [""]
    if not job_id:
        yield (*panel.blank(), hidden, hidden, gr.skip())
        return
    try:
        async with connected(request) as client, aclosing(watch.views(client, job_id)) as views:
            async for view, job in views:
                going = not job.status.is_final
                yield (*view, gr.update(visible=going), gr.update(visible=not going), gr.skip())
    except EXPECTED as error:
        yield (*panel.blank(), hidden, hidden, faults_of(error))
