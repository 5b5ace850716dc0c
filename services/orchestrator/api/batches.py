"""``/v1/batches``: many jobs in one request: submit, read, cancel."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Response
from fastapi.responses import JSONResponse

from dualprocess.schemas import Batch, BatchRequest, FieldError, JobPage, JobStatus
from services.orchestrator.api.auth import READ, SUBMIT, CallerDep
from services.orchestrator.api.dry_runs import ANSWERED, IsDry, answer, dry_run, how_long
from services.orchestrator.api.expand import Ready, expand
from services.orchestrator.api.jobs import OPTIMIZE_PRIORITY, IdempotencyKey
from services.orchestrator.api.json_route import JsonRoute
from services.orchestrator.api.problems import InvalidSpec, ProblemError
from services.orchestrator.api.quotas import admitting
from services.orchestrator.api.state import StateDep
from services.orchestrator.store.batches import NewJob
from services.orchestrator.store.ids import new_job_id, new_job_ids
from services.orchestrator.store.jobs import needed_vlms, optimize_fields
from services.orchestrator.work import together

router = APIRouter(prefix="/v1/batches", tags=["batches"], route_class=JsonRoute)

#: Bytes of all specs of one batch, as they are stored: they are sent to Redis at once.
MAX_STORED_BYTES = 64 * 1024 * 1024


async def _batch(
    batch_id: Annotated[str, Path(pattern="^[0-9a-z]{26}$", description="A batch's id.")],
    state: StateDep,
    caller: CallerDep,
) -> Batch:
    batch = await state.batches.read(batch_id)
    if batch is None or caller.sees not in (None, batch.owner):
        detail = (
            "POST /v1/batches answers with the id; a batch is deleted with the last of its jobs."
        )
        raise ProblemError(404, f"There is no batch {batch_id}", detail)
    return batch


#: The batch in the path, or a 404, also for a batch of another owner.
BatchDep = Annotated[Batch, Depends(_batch)]


@router.post("", status_code=202, response_model=Batch, responses=ANSWERED, dependencies=[SUBMIT])
async def submit(
    request: BatchRequest,
    state: StateDep,
    caller: CallerDep,
    response: Response,
    idempotency_key: IdempotencyKey = None,
    is_dry: IsDry = False,
) -> Batch | JSONResponse:
    """Checks every spec, and queues all of them or none: a 422 names the place of each fault."""
    ready = await expand(request, state, caller)
    work = together(one.work for one in ready)
    jobs = await asyncio.to_thread(_new_jobs, ready)
    if is_dry:
        told = list(dict.fromkeys(text for one in ready for text in one.warnings))
        return await answer(
            await dry_run(
                work,
                state,
                caller,
                jobs=len(jobs),
                needs=[(job.generator, job.vlms) for job in jobs],
                priority=OPTIMIZE_PRIORITY,
                time=await how_long([(one.spec, one.work) for one in ready], state),
                warnings=told,
            )
        )
    digest = await asyncio.to_thread(_digest, request)
    batch_id = new_job_id()
    with admitting(work):
        known_id, known_digest = await state.batches.submit(
            batch_id,
            jobs,
            name=request.name,
            priority=OPTIMIZE_PRIORITY,
            owner=caller.owner,
            idempotency=(idempotency_key, digest) if idempotency_key else None,
        )
    if known_id != batch_id and known_digest != digest:
        message = f"stands for another request, {known_id}; use a new key"
        raise InvalidSpec(FieldError(field="Idempotency-Key", message=message))
    response.headers["Location"] = f"/v1/batches/{known_id}"
    batch = await state.batches.read(known_id)
    if batch is None:
        raise ProblemError(410, f"Batch {known_id} has been deleted since", "Use a new key.")
    return batch


@router.get("/{batch_id}", dependencies=[READ])
async def read(batch: BatchDep) -> Batch:
    """The batch, as it is now."""
    return batch


@router.get("/{batch_id}/jobs", dependencies=[READ])
async def list_jobs(
    batch: BatchDep,
    state: StateDep,
    cursor: Annotated[str | None, Query(pattern="^[0-9a-z]{26}$")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    status: JobStatus | None = None,
) -> JobPage:
    """Its jobs, the last submitted first. Send `next` of one page as `cursor` to get the following
    page."""
    return await state.jobs.page(cursor=cursor, limit=limit, status=status, batch=batch.id)


@router.post("/{batch_id}/cancel", dependencies=[SUBMIT])
async def cancel(batch: BatchDep, state: StateDep) -> Batch:
    """Ends its queued jobs, and stops the running ones after their current step; they export what
    they learned."""
    await state.batches.cancel(batch.id)
    return await state.batches.read(batch.id) or batch


def _digest(request: BatchRequest) -> str:
    return hashlib.sha256(f"batch {request.model_dump_json()}".encode()).hexdigest()


def _new_jobs(ready: list[Ready]) -> list[NewJob]:
    """Raises ``InvalidSpec`` if the specs are too large together."""
    jobs, stored = [], 0
    for job_id, one in zip(new_job_ids(len(ready)), ready, strict=True):
        fields = optimize_fields(one.spec, one.work, one.webhook, one.warnings)
        stored += sum(len(value) for value in fields.values())
        if stored > MAX_STORED_BYTES:
            message = (
                f"have more than {MAX_STORED_BYTES >> 20} MiB with their drawings; send smaller "
                "drawings, or several batches"
            )
            raise InvalidSpec(FieldError(field="specs", message=message))
        jobs.append(NewJob(job_id, one.spec.generator, needed_vlms(one.spec), fields))
    return jobs
