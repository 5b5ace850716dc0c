"""The panel of one job: its name, progress, pictures, curves, scores and files."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

from dualprocess import AsyncClient
from dualprocess.errors import DualProcessError
from dualprocess.schemas import Job, ResolvedImagesSpec, ResolvedJobSpec
from services.orchestrator.ui import pictures
from services.orchestrator.ui.curves import Chart, Curve, chart
from services.orchestrator.ui.progress import Progress
from services.orchestrator.ui.render import html, picture

#: The most seeds, or steps, with pictures.
_MOST_SEEDS = 16
_MOST_STEPS = 8
#: Shown probabilities are a mean over so many steps, since those of one step vary a lot.
_RECENT = 10
#: The longest question in a legend.
_LABEL_CHARACTERS = 60

LORA_FILE = "pytorch_lora_weights.safetensors"
_FILES = {
    LORA_FILE: "LoRA for diffusers",
    "pytorch_lora_weights_kohya.safetensors": "LoRA for ComfyUI",
    "adapter_model.safetensors": "LoRA for peft",
    "adapter_config.json": "Its configuration",
    "samples.png": "Samples",
    "loss.png": "Loss curve",
    "metrics.jsonl": "Metrics",
    "job.json": "Settings",
}
_OF_PEFT = {"adapter_model.safetensors", "adapter_config.json"}

EMPTY = html("head", job=None, example=picture("example.png"))


class NoLesson(DualProcessError):
    """The job makes images or words, which this panel can't show."""

    def __init__(self, job: Job) -> None:
        super().__init__(f"Job {job.id} is no training job; its images are in the gallery")


def lesson(job: Job) -> ResolvedJobSpec:
    """The job's spec. Raises ``NoLesson`` if it is not an optimise job."""
    if not isinstance(job.spec, ResolvedJobSpec):
        raise NoLesson(job)
    return job.spec


def title(job: Job) -> str:
    return job.name or prompt(job)


def prompt(job: Job) -> str:
    """The job's first prompt."""
    if isinstance(job.spec, ResolvedImagesSpec):
        return job.spec.prompt
    return lesson(job).prompts[0]


def head(job: Job, progress: Progress) -> str:
    spec = lesson(job)
    recent = [value for curve in progress.probabilities for _, value in curve[-_RECENT:]]
    return html(
        "head",
        job=job,
        title=title(job),
        status=str(progress.status),
        teachers=teachers(job),
        judge=spec.judge,
        step=progress.step,
        steps=progress.steps,
        position=job.position,
        waiting_for=None if progress.status.is_final else progress.waiting_for,
        left=progress.seconds_left,
        loss=progress.losses[-1][1] if progress.losses else job.loss,
        probability=sum(recent) / len(recent) if recent else None,
    )


def teachers(job: Job) -> str:
    return " and ".join(use.name for use in lesson(job).vlm)


async def preview(client: AsyncClient, job: Job, progress: Progress) -> str:
    """The samples of an ended job, or the newest pair of a running one; and the earlier
    previews."""
    samples = await pairs(client, job) if progress.status.is_final else []
    steps = _spread(list(progress.previews), _MOST_STEPS)
    found = await asyncio.gather(
        *(pictures.halves(client, job.id, progress.previews[step]) for step in steps)
    )
    base, lora = found[-1] if found else ("", "")
    strip = [(step, pair[1]) for step, pair in zip(steps, found, strict=True)]
    return html(
        "pictures",
        samples=samples,
        base=base,
        lora=lora,
        step=steps[-1] if steps else 0,
        strip=strip,
    )


def curves(job: Job, progress: Progress) -> str:
    return html("curves", charts=charts(job, progress))


def charts(job: Job, progress: Progress, beside: Sequence[Progress] = ()) -> list[Chart]:
    """Charts of the loss, of the probability of each right answer, and of what else changed, if the
    steps measured it.

    The scales also fit the jobs ``beside`` it.
    """
    if not progress.losses:
        return []
    labels = [asked.question[:_LABEL_CHARACTERS] for asked in lesson(job).questions]
    steps = progress.steps if not progress.status.is_final else progress.losses[-1][0]
    shown = [
        chart("Loss", [("loss", progress.losses)], steps, most=_most(one.losses for one in beside)),
        chart(
            "Probability of the right answer",
            list(zip(labels, progress.probabilities, strict=False)),
            steps,
            top=1.0,
        ),
    ]
    changed = [("drift", progress.drift), ("diversity", progress.diversity)]
    told = [(name, curve) for name, curve in changed if curve]
    if told:
        others = (curve for one in beside for curve in (one.drift, one.diversity))
        title = " and ".join(name for name, _ in told).capitalize()
        # The axis reaches 1: drift 1 is another picture, diversity 1 is the base model's.
        shown.append(chart(title, told, steps, most=max(1.0, _most(others))))
    return shown


def _most(curves: Iterable[Curve]) -> float:
    return max((value for curve in curves for _, value in curve), default=0.0)


def outcome(job: Job) -> str:
    """Scores and files of a job that has ended."""
    have = {file.name for file in job.artifacts}
    if LORA_FILE in have:
        # The API makes them from it.
        have |= _OF_PEFT
    files = [(name, what) for name, what in _FILES.items() if name in have]
    return html(
        "outcome",
        job=job,
        teachers=teachers(job),
        files=files,
        usable=LORA_FILE in have,
    )


async def pairs(client: AsyncClient, job: Job) -> list[tuple[int, str, str]]:
    """Seed, picture of the base model, picture with the LoRA; at most ``_MOST_SEEDS`` of them."""
    both = seeds(job)[:_MOST_SEEDS]
    base, lora = await asyncio.gather(
        *(
            pictures.shown(client, job, [f"{side}-{seed}.png" for seed in both])
            for side in ("base", "lora")
        )
    )
    return list(zip(both, base, lora, strict=True))


def seeds(job: Job) -> list[int]:
    """The seeds with pictures of both base and LoRA, in order."""
    names = {file.name for file in job.artifacts}
    found = (_seed(name) for name in names if name.startswith("base-"))
    return sorted(seed for seed in found if seed is not None and f"lora-{seed}.png" in names)


def _seed(name: str) -> int | None:
    text = name.removeprefix("base-").removesuffix(".png")
    return int(text) if text.isdecimal() else None


def _spread(steps: Sequence[int], most: int) -> list[int]:
    """At most ``most`` of the steps, spread evenly; the last one is always among them."""
    if len(steps) <= most:
        return list(steps)
    return [steps[round(index * (len(steps) - 1) / (most - 1))] for index in range(most)]


def blank() -> tuple[Any, ...]:
    """The panel without a job."""
    return EMPTY, "", "", ""
