"""The jobs for the load: running ones, and queued ones."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from dualprocess.schemas import (
    ANONYMOUS,
    JobSpec,
    Probability,
    Question,
    QuestionScore,
    StepEvent,
    StepTimings,
)
from services.common.presets import load_presets
from services.orchestrator.api.resolve import resolve_job
from services.orchestrator.store.ids import new_job_id
from services.orchestrator.store.jobs import needed_vlms, optimize_fields
from services.orchestrator.store.queue import Claim, Queue
from services.orchestrator.work import job_work

GENERATOR, VLM = "flux-schnell", "idefics2"
QUESTION, ANSWER = "Is the man smiling?", "Yes"
STEPS = 10_000
SPEC = JobSpec(
    prompt="a photo of a man",
    questions=[Question(question=QUESTION, answer=ANSWER)],
    generator=GENERATOR,
    vlm=VLM,
)
_AT_ONCE = 50


@dataclass(frozen=True)
class Filled:
    """``running`` jobs are under a lease; ``queued`` ones wait."""

    running: list[Claim]
    queued: list[str]


async def fill(queue: Queue, *, running: int, queued: int) -> Filled:
    """Submits jobs without the API, and claims the first ones."""
    await _submit(queue, running)
    queues = await queue.served_by(GENERATOR, [VLM])
    claims = [await queue.claim("load", queues) for _ in range(running)]
    return Filled([claim for claim in claims if claim], await _submit(queue, queued))


async def _submit(queue: Queue, count: int) -> list[str]:
    presets = load_presets()
    resolved = resolve_job(SPEC, presets)
    work = job_work(resolved, presets.generator(resolved.generator))
    fields = optimize_fields(resolved, work)
    ids = [new_job_id() for _ in range(count)]
    gate = asyncio.Semaphore(_AT_ONCE)

    async def submit(job_id: str) -> None:
        async with gate:
            await queue.submit(
                job_id,
                generator=GENERATOR,
                vlms=needed_vlms(resolved),
                priority=0,
                owner=ANONYMOUS,
                fields=fields,
                idempotency=None,
            )

    await asyncio.gather(*map(submit, ids))
    return ids


async def tell_step(queue: Queue, claim: Claim, number: int) -> None:
    """Reports a step as a worker does. Raises ``LeaseLost``."""
    right = Probability(joint=0.5, geometric_mean=0.5)
    event = StepEvent(
        attempt=1,
        step=number,
        steps=STEPS,
        loss=1 / number,
        probability=right,
        questions=[QuestionScore(question=QUESTION, answer=ANSWER, probability=right)],
        grad_norm=0.1,
        timings=StepTimings(forward=0.1, vlm=0.1, wire=0.1, backward=0.1, total=0.4),
    )
    fields = {
        "step": str(number),
        "loss": repr(event.loss),
        "probability": right.model_dump_json(),
    }
    await queue.record(claim, event=event, fields=fields)
