"""The Use tab: images with the LoRAs of finished jobs, in a grid of seeds and strengths."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import gradio as gr

from dualprocess import AsyncClient
from dualprocess.schemas import ImagesRequest, Job, ResolvedImagesSpec
from services.orchestrator.ui import choices, numbers, panel, pictures
from services.orchestrator.ui.faults import EXPECTED, NOTHING, fault, faults_of
from services.orchestrator.ui.pieces import fault_box, piece
from services.orchestrator.ui.render import asset, html
from services.orchestrator.ui.visitor import connected, visiting

SCOPE = "use"
_MOST_ROWS = 8


@dataclass(frozen=True)
class Use:
    prompt: gr.Textbox
    generator: gr.Dropdown
    loras: gr.HTML
    seeds: gr.Textbox
    strengths: gr.Textbox
    ask: gr.Checkbox
    faults: gr.HTML
    grid: gr.HTML

    @property
    def filled(self) -> list[Any]:
        return [self.prompt, self.generator, self.loras, self.seeds, self.strengths]


def build() -> Use:
    with gr.Row(elem_classes="dp-teach"):
        with gr.Column(scale=5, min_width=320, elem_classes="dp-form"):
            prompt = gr.Textbox(
                label="Prompt", placeholder="a circle", lines=2, elem_id=f"{SCOPE}-prompt"
            )
            generator = gr.Dropdown(
                allow_custom_value=True,
                label="Generator",
                info="the LoRAs below are for this generator",
                elem_id=f"{SCOPE}-generator",
            )
            loras = gr.HTML(
                value=[],
                html_template="<h3>LoRAs</h3>",
                js_on_load=asset("loras.js"),
                apply_default_css=False,
                elem_id=f"{SCOPE}-loras",
                choices=[],
            )
            with gr.Row():
                seeds = gr.Textbox(
                    "0-3",
                    label="Seeds",
                    info="for example 0-7 or 1, 5, 9",
                    elem_id=f"{SCOPE}-seeds",
                )
                strengths = gr.Textbox(
                    "0, 1",
                    label="Strengths",
                    info="one row for each: 0 is the base model, 1 the weights above",
                    elem_id=f"{SCOPE}-strengths",
                )
            ask = gr.Checkbox(
                label="Ask the first LoRA's questions",
                info="shows scores beside each row",
                value=True,
            )
            faults = fault_box(SCOPE)
            with gr.Row(elem_classes="dp-actions"):
                make = gr.Button("Make images", variant="primary", elem_id="use-make")
        with gr.Column(scale=6, min_width=320, elem_classes="dp-panel"):
            grid = piece("use-grid", html("grid", rows=[], seeds=[], warnings=[]))
    tab = Use(prompt, generator, loras, seeds, strengths, ask, faults, grid)
    make.click(
        _made,
        [prompt, generator, loras, seeds, strengths, ask],
        [grid, faults],
        show_progress="minimal",
    )
    generator.change(offered, [generator], [loras], show_progress="hidden")
    return tab


async def opened(request: gr.Request, mine: str | None, taught: str | None) -> tuple[Any, Any]:
    """The menu of generators, and the LoRAs of the chosen one; at first it is the Teach tab's."""
    generator = mine or taught
    async with visiting(request) as client:
        menu = choices.models((await client.models()).generators)
    return gr.update(choices=menu, value=generator), await offered(request, generator)


async def offered(request: gr.Request, generator: str | None) -> Any:
    """The menu of LoRAs for this generator."""
    async with visiting(request) as client:
        jobs = choices.with_lora(await choices.optimise_jobs(client))
    fitting = [job for job in jobs if job.generator == generator]
    return gr.update(choices=[{"job": job.id, "label": choices.label(job)} for job in fitting])


def of_job(job: Job) -> list[Any]:
    """The fields for a job of the gallery: its LoRA, or the images that it made."""
    spec = job.spec
    if not isinstance(spec, ResolvedImagesSpec):
        lora = [{"job": job.id, "weight": 1}]
        return [panel.prompt(job), job.generator, lora, "0-3", "0, 1"]
    loras = [use.model_dump(exclude={"file"}) for use in spec.loras]
    return [spec.prompt, spec.generator, loras, ", ".join(map(str, pictures.seeds(job))), "1"]


async def _made(
    request: gr.Request,
    prompt: str,
    generator: str,
    loras: list[dict[str, Any]] | None,
    seeds: str,
    strengths: str,
    ask: bool,
) -> tuple[Any, Any]:
    """The grid, and what went wrong."""
    loras = loras or []
    try:
        rows = numbers.floats(strengths, "strengths") if loras else [0.0]
        wanted = numbers.seeds(seeds, "seeds")
    except numbers.NotNumbers as error:
        return gr.skip(), fault("Something can't be used", **{error.field: str(error)})
    if len(rows) > _MOST_ROWS:
        return gr.skip(), fault(
            "These are too many images at once", strengths=f"at most {_MOST_ROWS} rows"
        )
    try:
        async with connected(request) as client:
            taught = await _taught(client, loras[0]["job"], ask=ask) if loras else {}
            requests = [
                _request(prompt, generator, loras, wanted, strength, taught) for strength in rows
            ]
            jobs = await asyncio.gather(*(_images(client, request) for request in requests))
            return await _grid(client, rows, jobs), NOTHING
    except EXPECTED as error:
        return gr.skip(), faults_of(error)


def _request(
    prompt: str,
    generator: str,
    loras: list[dict[str, Any]],
    seeds: list[int],
    strength: float,
    taught: dict[str, Any],
) -> ImagesRequest:
    used = [one | {"weight": one["weight"] * strength} for one in loras]
    data = {"prompt": prompt or "", "generator": generator or "", "seeds": seeds, **taught}
    return ImagesRequest.model_validate(data | {"loras": used if strength else []})


async def _taught(client: AsyncClient, job_id: str, *, ask: bool) -> dict[str, Any]:
    """The settings of images and questions with which the LoRA was taught; of a file that came with
    images, those of the images."""
    job = await client.job(job_id)
    spec = job.spec if isinstance(job.spec, ResolvedImagesSpec) else panel.lesson(job)
    image: dict[str, Any] = {"image": spec.image.model_dump()}
    if not ask or not spec.questions:
        return image
    return image | {
        "questions": spec.questions,
        "question_postfix": spec.question_postfix,
        "vlm": spec.vlm if isinstance(spec, ResolvedImagesSpec) else spec.vlm[0].name,
    }


async def _images(client: AsyncClient, request: ImagesRequest) -> Job:
    job = await client.generate(request)
    return job if job.status.is_final else await client.wait(job.id)


async def show(client: AsyncClient, job: Job) -> str:
    """The grid of one images job."""
    return await _grid(client, [1.0], [job])


async def _grid(client: AsyncClient, strengths: list[float], jobs: list[Job]) -> str:
    rows = []
    seeds: list[int] = []
    for strength, job in zip(strengths, jobs, strict=True):
        assert isinstance(job.spec, ResolvedImagesSpec)
        seeds = pictures.seeds(job)
        found = await pictures.shown(client, job, [f"image-{seed}.png" for seed in seeds])
        name = f"strength {strength:g}" if job.spec.loras else "base model"
        rows.append((name, job.error, job.scores.lora or job.scores.base, found))
    warnings = dict.fromkeys(sentence for job in jobs for sentence in job.warnings)
    return html("grid", rows=rows, seeds=seeds, warnings=warnings)
