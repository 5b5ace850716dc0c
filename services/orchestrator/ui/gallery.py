"""The Gallery tab: all of the visitor's jobs, newest first."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import gradio as gr

from dualprocess import AsyncClient
from dualprocess.schemas import Job, JobKind, ResolvedImagesSpec, ResolvedJobSpec, Score
from services.orchestrator.ui import panel, pictures
from services.orchestrator.ui.faults import EXPECTED, faults_of
from services.orchestrator.ui.render import asset, html
from services.orchestrator.ui.visitor import connected

_PAGE = 24
_IMAGES_SHOWN = 4
LORAS, IMAGES, ALL = "LoRAs", "Images", "Everything"


@dataclass(frozen=True)
class Card:
    job: Job
    title: str
    prompt: str
    pictures: list[str]
    teacher: tuple[float, float] | None
    judge: tuple[float, float] | None

    @property
    def lora_job(self) -> bool:
        return self.job.kind == JobKind.OPTIMIZE


@dataclass(frozen=True)
class Gallery:
    cards: gr.HTML
    kind: gr.Radio
    count: gr.State
    refresh: gr.Button


def build() -> Gallery:
    with gr.Row(elem_classes="dp-actions"):
        kind = gr.Radio([LORAS, IMAGES, ALL], value=LORAS, label="Show", show_label=False)
        refresh = gr.Button("Refresh", elem_id="gallery-refresh", min_width=100)
    cards = gr.HTML("", js_on_load=asset("cards.js"), apply_default_css=False, elem_id="gallery")
    count = gr.State(_PAGE)
    more = gr.Button("Show older ones", elem_id="gallery-more")
    tab = Gallery(cards, kind, count, refresh)
    asked = {"fn": listed, "inputs": [kind, count], "outputs": [cards], "show_progress": "hidden"}
    refresh.click(**asked)
    kind.change(**asked)
    more.click(lambda shown: shown + _PAGE, [count], [count]).then(**asked)
    return tab


async def listed(request: gr.Request, kind: str, count: int) -> str:
    """The cards. Raises ``gr.Error``."""
    try:
        async with connected(request) as client:
            jobs = await _newest(client, kind, count)
            return html("gallery", cards=await asyncio.gather(*(_card(client, job) for job in jobs)))
    except EXPECTED as error:
        raise gr.Error(faults_of(error)["title"]) from error


async def _newest(client: AsyncClient, kind: str, count: int) -> list[Job]:
    wanted = {LORAS: {JobKind.OPTIMIZE}, IMAGES: {JobKind.IMAGES}}.get(kind, set(JobKind))
    jobs: list[Job] = []
    async for job in client.jobs():
        if job.kind in wanted:
            jobs.append(job)
        if len(jobs) == count:
            break
    return jobs


async def _card(client: AsyncClient, job: Job) -> Card:
    spec = job.spec
    prompt = spec.prompts[0] if isinstance(spec, ResolvedJobSpec) else spec.prompt
    judge = job.scores.judge
    return Card(
        job,
        panel.title(job),
        prompt,
        await pictures.thumbnails(client, job, _pictures(job)),
        _both(job.scores.base, job.scores.lora),
        _both(judge.base, judge.lora) if judge else None,
    )


def _pictures(job: Job) -> list[str]:
    if isinstance(job.spec, ResolvedImagesSpec):
        return [f"image-{seed}.png" for seed in job.spec.seeds[:_IMAGES_SHOWN]]
    first = job.spec.eval.seed
    ended = [f"base-{first}.png", f"lora-{first}.png"]
    names = sorted(file.name for file in job.artifacts)
    previews = [name for name in names if name.startswith("preview-")]
    return ended if ended[0] in names else previews[-1:]


def _both(base: Score | None, lora: Score | None) -> tuple[float, float] | None:
    if base is None or lora is None:
        return None
    return base.probability.geometric_mean, lora.probability.geometric_mean
