"""Follows a job while it learns, with a progress notification for each event that tells one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Protocol

from dualprocess.async_client import AsyncClient
from dualprocess.schemas import (
    Event,
    Job,
    PreviewEvent,
    SkippedStepEvent,
    StatusEvent,
    StepEvent,
)

#: The protocol wants every notification's progress to be above the last one's.
_LITTLE = 1e-3


class Report(Protocol):
    async def __call__(
        self, progress: float, total: float | None = None, message: str | None = None
    ) -> None: ...


async def follow(client: AsyncClient, job: Job, report: Report, *, seconds: float) -> Job:
    """The job when it has ended, or after ``seconds``."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await _reported(client, job, report)
    return await client.job(job.id)


async def _reported(client: AsyncClient, job: Job, report: Report) -> None:
    last = 0.0
    async with aclosing(_events(client, job)) as events:
        async for event in events:
            message = _sentence(event)
            if message is None:
                continue
            step = event.step if isinstance(event, StepEvent | SkippedStepEvent) else 0
            last = max(float(step), last + _LITTLE)
            await report(last, job.steps or None, message)


async def _events(client: AsyncClient, job: Job) -> AsyncGenerator[Event, None]:
    async for record in client.events(job.id):
        yield record.event


def _sentence(event: Event) -> str | None:
    match event:
        case StepEvent():
            right = event.probability.geometric_mean
            return (
                f"step {event.step} of {event.steps}: loss {event.loss:.4f}, probability of the "
                f"right answers {right:.3f}"
            )
        case SkippedStepEvent():
            return f"step {event.step} of {event.steps} was skipped: {event.reason}"
        case PreviewEvent():
            return f"a picture after step {event.step}: {event.artifact.name}"
        case StatusEvent(waiting_for=str(reason)):
            return f"{event.status}, waits for {reason}"
        case StatusEvent():
            return str(event.status)
    return None
