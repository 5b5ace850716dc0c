"""``/v1/jobs``: submit, list, read, cancel, delete."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Annotated

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import JSONResponse

from dualprocess.schemas import FieldError, Job, JobPage, JobSpec, JobStatus
from services.orchestrator.api.auth import READ, SUBMIT, CallerDep
from services.orchestrator.api.dry_runs import ANSWERED, IsDry, answer, dry_run, how_long
from services.orchestrator.api.json_route import JsonRoute
from services.orchestrator.api.known import known_base
from services.orchestrator.api.problems import InvalidSpec, ProblemError
from services.orchestrator.api.quotas import admitting, check_steps, check_work
from services.orchestrator.api.reading import warnings
from services.orchestrator.api.resolve import resolve_job
from services.orchestrator.api.starts import check_start, kept_start
from services.orchestrator.api.state import JobDep, State, StateDep
from services.orchestrator.api.webhooks import complete_webhook
from services.orchestrator.store.ids import new_job_id
from services.orchestrator.store.jobs import needed_vlms, optimize_fields
from services.orchestrator.work import job_work

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], route_class=JsonRoute)

OPTIMIZE_PRIORITY = 0

IdempotencyKey = Annotated[
    str | None,
    Header(
        max_length=200,
        description="A second request with the same key and body returns the same result.",
    ),
]


@router.post("", status_code=202, response_model=Job, responses=ANSWERED, dependencies=[SUBMIT])
async def submit(
    spec: JobSpec,
    state: StateDep,
    caller: CallerDep,
    response: Response,
    idempotency_key: IdempotencyKey = None,
    is_dry: IsDry = False,
) -> Job | JSONResponse:
    """Checks the spec against the presets and queues it."""
    resolved = await asyncio.to_thread(resolve_job, spec, state.presets)
    check_steps(caller, resolved.optimizer.steps)
    preset = state.presets.generator(resolved.generator)
    work = job_work(resolved, preset)
    check_work(caller, work, state.max_job_work)
    webhook = await complete_webhook(spec.webhook, state.addresses, state.webhook_secret)
    job_id, digest = new_job_id(), await asyncio.to_thread(_digest, spec)
    of_start = await check_start(resolved, state, caller)
    stored, files = kept_start(resolved, job_id)
    unread = await asyncio.to_thread(warnings, preset, stored.prompts, stored.image)
    told = [*of_start, *unread]
    base = await known_base(stored, state, caller)
    if is_dry:
        return await answer(
            await dry_run(
                work,
                state,
                caller,
                needs=[(resolved.generator, needed_vlms(resolved))],
                priority=OPTIMIZE_PRIORITY,
                spec=resolved,
                time=await how_long([(resolved, work)], state),
                warnings=told,
                base=base,
            )
        )
    fields = await asyncio.to_thread(optimize_fields, stored, work, webhook, told)
    if base is not None:
        fields["base"] = base.model_dump_json()
    with admitting(work):
        async with state.uploads.submission(job_id, files):
            known_id, known_digest = await state.queue.submit(
                job_id,
                generator=stored.generator,
                vlms=needed_vlms(stored),
                priority=OPTIMIZE_PRIORITY,
                owner=caller.owner,
                fields=fields,
                idempotency=(idempotency_key, digest) if idempotency_key else None,
            )
    if known_id != job_id and known_digest != digest:
        raise InvalidSpec(
            FieldError(
                field="Idempotency-Key",
                message=f"stands for another request, job {known_id}; use a new key",
            )
        )
    response.headers["Location"] = f"/v1/jobs/{known_id}"
    job = await state.jobs.read(known_id)
    assert job is not None
    return await with_wait(job, state)


@router.get("", dependencies=[READ])
async def list_jobs(
    state: StateDep,
    caller: CallerDep,
    cursor: Annotated[str | None, Query(pattern="^[0-9a-z]{26}$")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    status: JobStatus | None = None,
) -> JobPage:
    """Newest first. Send `next` of one page as `cursor` to get the following page."""
    return await state.jobs.page(cursor=cursor, limit=limit, status=status, owner=caller.sees)


@router.get("/{job_id}", dependencies=[READ])
async def read(job: JobDep, state: StateDep) -> Job:
    """The job, as it is now."""
    return await with_wait(job, state)


@router.post("/{job_id}/cancel", dependencies=[SUBMIT])
async def cancel(job: JobDep, state: StateDep) -> Job:
    """Ends a queued job; stops a running one after its step, with what it learned exported.

    A job that has ended stays as it is.
    """
    await state.queue.cancel(job.id)
    return await state.jobs.read(job.id) or job


@router.delete("/{job_id}", status_code=204, dependencies=[SUBMIT])
async def delete(job: JobDep, state: StateDep) -> None:
    """Forgets a job that has ended, with its events and files, and a message not yet sent.

    A job that is queued or running answers 409: cancel it first.
    """
    status = await state.deletion.delete(job.id)
    if status is not None and not status.is_final:
        raise ProblemError(
            409,
            f"Job {job.id} is {status}",
            f"Only a job that has ended can be deleted: POST /v1/jobs/{job.id}/cancel first.",
        )


def _digest(spec: JobSpec) -> str:
    return hashlib.sha256(spec.model_dump_json().encode()).hexdigest()


async def with_wait(job: Job, state: State) -> Job:
    """Says so in a queued job that no live worker can take."""
    if job.status != JobStatus.QUEUED or job.waiting_for is not None:
        return job
    if any(worker.serves(job.generator, job.vlms) for worker in await state.workers.lately()):
        return job
    needed = " with ".join(filter(None, (job.generator, " and ".join(job.vlms))))
    return job.model_copy(update={"waiting_for": f"a worker that serves {needed}; none is alive"})
