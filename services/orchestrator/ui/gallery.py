"""The Gallery tab: all of the visitor's jobs, newest first."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import gradio as gr

from dualprocess import AsyncClient
from dualprocess.schemas import Job, JobKind, ResolvedImagesSpec, Score
from services.orchestrator.ui import panel, pictures
from services.orchestrator.ui.progress import Progress
from services.orchestrator.ui.render import asset, html
from services.orchestrator.ui.visitor import visiting

_PAGE = 24
_IMAGES_SHOWN = 4
LORAS, IMAGES, BOTH = "LoRAs", "Images", "Both"
_KINDS = {
    LORAS: {JobKind.OPTIMIZE},
    IMAGES: {JobKind.IMAGES},
    BOTH: {JobKind.OPTIMIZE, JobKind.IMAGES},
}


@dataclass(frozen=True)
class Card:
    job: Job
    title: str
    prompt: str
    #: Rows of pictures: one of the base model and one with the LoRA; or one of an images job.
    rows: list[list[str]]
    teacher: tuple[float, float] | None
    judge: tuple[float, float] | None


@dataclass(frozen=True)
class Gallery:
    cards: gr.HTML
    kind: gr.Radio
    count: gr.State
    more: gr.Button

    @property
    def look(self) -> dict[str, Any]:
        """The event that fills the gallery again."""
        return {
            "fn": listed,
            "inputs": [self.kind, self.count],
            "outputs": [self.cards, self.more],
            "show_progress": "hidden",
        }


def build() -> Gallery:
    kind = gr.Radio([LORAS, IMAGES, BOTH], value=LORAS, label="Show", show_label=False)
    cards = gr.HTML("", js_on_load=asset("cards.js"), apply_default_css=False, elem_id="gallery")
    count = gr.State(_PAGE)
    more = gr.Button("Show older ones", elem_id="gallery-more", visible=False)
    tab = Gallery(cards, kind, count, more)
    kind.change(**tab.look)
    more.click(lambda shown: shown + _PAGE, [count], [count]).then(**tab.look)
    return tab


async def listed(request: gr.Request, kind: str, count: int) -> tuple[str, Any]:
    """The cards, and whether there are older jobs. Raises ``gr.Error``."""
    async with visiting(request) as client:
        jobs = await _newest(client, kind, count + 1)
        cards = await asyncio.gather(*(_card(client, job) for job in jobs[:count]))
        return html("gallery", cards=cards), gr.update(visible=len(jobs) > count)


async def _newest(client: AsyncClient, kind: str, count: int) -> list[Job]:
    wanted = _KINDS[kind]
    jobs: list[Job] = []
    async for job in client.jobs():
        if job.kind in wanted:
            jobs.append(job)
        if len(jobs) == count:
            break
    return jobs


async def _card(client: AsyncClient, job: Job) -> Card:
    judge = job.scores.judge
    return Card(
        job,
        panel.title(job),
        panel.prompt(job),
        await _rows(client, job),
        _both(job.scores.base, job.scores.lora),
        _both(judge.base, judge.lora) if judge else None,
    )


async def _rows(client: AsyncClient, job: Job) -> list[list[str]]:
    if isinstance(job.spec, ResolvedImagesSpec):
        names = [f"image-{seed}.png" for seed in pictures.seeds(job)[:_IMAGES_SHOWN]]
        made = await pictures.thumbnails(client, job, names)
        return [made] if made else []
    seeds = panel.seeds(job)[:_IMAGES_SHOWN]
    if seeds:
        both = [[f"{side}-{seed}.png" for seed in seeds] for side in ("base", "lora")]
        return [await pictures.thumbnails(client, job, names) for names in both]
    # The previews that the job made before it ended.
    previews = list(Progress.of(job).previews.values())[-_IMAGES_SHOWN:]
    pairs = [await pictures.halves(client, job.id, preview, small=True) for preview in previews]
    return [list(row) for row in zip(*pairs, strict=True)]


def _both(base: Score | None, lora: Score | None) -> tuple[float, float] | None:
    if base is None or lora is None:
        return None
    return base.probability.geometric_mean, lora.probability.geometric_mean
