"""The choices in the page's menus."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dualprocess import AsyncClient
from dualprocess.schemas import GeneratorInfo, Job, JobKind, JobStatus, ModelList, VlmInfo
from services.orchestrator.ui import panel
from services.orchestrator.ui.render import percent

#: Older jobs are found by their address or id.
MOST_JOBS = 200

Choice = tuple[str, str]


def models(infos: Iterable[GeneratorInfo | VlmInfo]) -> list[Choice]:
    """The models. Those with live workers come first, and are marked."""
    ordered = sorted(infos, key=lambda info: (info.live_workers == 0, info.name))
    return [
        (f"{info.name} · {'ready' if info.live_workers else 'no worker'}", info.name)
        for info in ordered
    ]


def live_pair(listed: ModelList) -> tuple[str | None, str | None]:
    """The models to begin with, if possible with live workers."""
    generators, vlms = models(listed.generators), models(listed.vlms)
    return (
        generators[0][1] if generators else None,
        vlms[0][1] if vlms else None,
    )


def with_lora(jobs: Sequence[Job]) -> list[Job]:
    """The jobs that have a LoRA."""
    return [job for job in jobs if any(file.name == panel.LORA_FILE for file in job.artifacts)]


def label(job: Job) -> str:
    score = job.scores.lora
    scored = f" · {percent(score.probability.geometric_mean)}" if score else ""
    return f"{panel.title(job)[:50]}{scored} · {job.id[-6:]}"


async def optimise_jobs(client: AsyncClient) -> list[Job]:
    """The newest optimise jobs."""
    found: list[Job] = []
    async for job in client.jobs():
        if job.kind == JobKind.OPTIMIZE:
            found.append(job)
        if len(found) == MOST_JOBS:
            break
    return found


def ended(jobs: Sequence[Job]) -> list[Job]:
    return [job for job in jobs if job.status.is_final and job.status != JobStatus.FAILED]
