"""Jobs that a request waits for: some seconds of work, with a higher priority than training."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

from fastapi import Response

from dualprocess.schemas import Job
from services.orchestrator.api.auth import Caller
from services.orchestrator.api.jobs import with_wait
from services.orchestrator.api.quotas import admitting
from services.orchestrator.api.state import State
from services.orchestrator.work import Work

PRIORITY = 10


async def run(
    fields: Mapping[str, str],
    work: Work,
    state: State,
    caller: Caller,
    response: Response,
    *,
    generator: str,
    vlms: Sequence[str],
    wait: float,
    job_id: str,
    files: Mapping[str, bytes],
) -> Job:
    """Queues a job with these ``fields`` and this ``work``. Returns the job when it has ended, or
    after ``wait`` seconds; then the response is a 202. ``files`` are its artifacts from the start.
    Raises ``NoPlace``, and queues nothing, if no more requests may wait."""
    # Before the job is queued, so that a refused request leaves no job.
    with state.places.take(caller.key_id) if wait else contextlib.nullcontext():
        with admitting(work):
            async with state.uploads.submission(job_id, files):
                await state.queue.submit(
                    job_id,
                    generator=generator,
                    vlms=vlms,
                    priority=PRIORITY,
                    owner=caller.owner,
                    fields=fields,
                    idempotency=None,
                )
        response.headers["Location"] = f"/v1/jobs/{job_id}"
        async with contextlib.aclosing(state.following.follow(job_id, seconds=wait)) as told:
            async for _ in told:
                pass
    job = await state.jobs.read(job_id)
    assert job is not None
    if not job.status.is_final:
        response.status_code = 202
    return await with_wait(job, state)
