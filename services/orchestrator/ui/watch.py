"""The panel of one job while it runs: a new view after each burst of events."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

import gradio as gr

from dualprocess import AsyncClient
from dualprocess.schemas import EventRecord, Job
from services.orchestrator.ui import panel
from services.orchestrator.ui.progress import Progress

#: The time between two views, since steps can come faster than anybody can read.
_BURST_SECONDS = 0.4
#: The time between two requests for the place in the queue, which is in no event.
_QUEUE_SECONDS = 2.0

#: The head, the pictures, the curves and the outcome.
View = tuple[Any, Any, Any, Any]


async def views(client: AsyncClient, job_id: str) -> AsyncGenerator[tuple[View, Job], None]:
    """Views of the job until its end. Parts that did not change are skipped."""
    job = await client.job(job_id)
    if job.status.is_final:
        yield await _ended(client, job), job
        return
    progress = Progress.of(job)
    yield (panel.head(job, progress), await panel.preview(client, job, progress), "", ""), job
    shown = len(progress.previews)
    async with aclosing(_bursts(client.events(job_id))) as bursts:
        async for burst in bursts:
            for record in burst:
                progress.take(record.event)
            if not burst or progress.status.is_final:
                job = await client.job(job_id)
                progress.status, progress.waiting_for = job.status, job.waiting_for
            if job.status.is_final:
                break
            pictures = gr.skip()
            if len(progress.previews) > shown:
                shown = len(progress.previews)
                pictures = await panel.preview(client, job, progress)
            curves = panel.curves(job, progress) if progress.losses else gr.skip()
            yield (panel.head(job, progress), pictures, curves, gr.skip()), job
    job = await client.job(job_id)
    yield await _ended(client, job), job


async def _ended(client: AsyncClient, job: Job) -> View:
    progress = await finished(client, job)
    return (
        panel.head(job, progress),
        await panel.preview(client, job, progress),
        panel.curves(job, progress),
        panel.outcome(job),
    )


async def finished(client: AsyncClient, job: Job) -> Progress:
    """The progress of an ended job, read from its files, since they are kept longer than events."""
    progress = Progress.of(job)
    if any(file.name == "metrics.jsonl" for file in job.artifacts):
        progress.take_metrics((await client.read_artifact(job.id, "metrics.jsonl")).decode())
    return progress


async def _bursts(
    events: AsyncIterator[EventRecord],
) -> AsyncGenerator[list[EventRecord], None]:
    """The events of the last moment, in bursts; an empty list if none came for a while."""
    queue: asyncio.Queue[EventRecord | None] = asyncio.Queue()

    async def pump() -> None:
        try:
            async for record in events:
                queue.put_nowait(record)
        finally:
            queue.put_nowait(None)

    task = asyncio.create_task(pump())
    try:
        going = True
        while going:
            burst: list[EventRecord | None] = []
            with contextlib.suppress(TimeoutError):
                burst.append(await asyncio.wait_for(queue.get(), _QUEUE_SECONDS))
                await asyncio.sleep(_BURST_SECONDS)
            while not queue.empty():
                burst.append(queue.get_nowait())
            going = None not in burst
            yield [record for record in burst if record is not None]
        await task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
