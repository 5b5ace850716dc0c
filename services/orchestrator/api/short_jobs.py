"""Jobs that a request waits for: some seconds of work, with a higher priority than training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fastapi import Response

from dualprocess.schemas import Job
from services.orchestrator.api.auth import Caller
from services.orchestrator.api.jobs import with_wait
from services.orchestrator.api.state import State
from services.orchestrator.store.artifacts import IMAGE_FILE
from services.orchestrator.store.ids import new_job_id

_PRIORITY = 10


async def run(
    fields: Mapping[str, str],
    state: State,
    caller: Caller,
    response: Response,
    *,
    generator: str,
    vlms: Sequence[str],
    wait: float,
    image: bytes | None = None,
) -> Job:
    """Queues a job with these ``fields``. Returns the job when it has ended, or after ``wait``
    seconds; then the response is a 202. ``image`` is its artifact ``image.png`` from the start."""
    job_id = new_job_id()
    files = {} if image is None else {IMAGE_FILE: image}
    async with state.uploads.submission(job_id, files):
        await state.queue.submit(
            job_id,
            generator=generator,
            vlms=vlms,
            priority=_PRIORITY,
            owner=caller.owner,
            fields=fields,
            idempotency=None,
        )
    response.headers["Location"] = f"/v1/jobs/{job_id}"
    async for _ in state.events.follow(job_id, seconds=wait):
        pass
    job = await state.jobs.read(job_id)
    assert job is not None
    if not job.status.is_final:
        response.status_code = 202
    return await with_wait(job, state)
