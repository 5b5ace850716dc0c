"""``/v1/images``: a short job of higher priority through the same queue."""

from __future__ import annotations

from fastapi import APIRouter, Response

from dualprocess.schemas import (
    FieldError,
    ImagesRequest,
    Job,
    ResolvedImagesSpec,
)
from services.orchestrator.api.auth import SUBMIT, Caller, CallerDep
from services.orchestrator.api.jobs import with_wait
from services.orchestrator.api.loras import lora_fault
from services.orchestrator.api.problems import InvalidSpec
from services.orchestrator.api.resolve import resolve_images
from services.orchestrator.api.state import State, StateDep
from services.orchestrator.store.ids import new_job_id
from services.orchestrator.store.jobs import images_fields, needed_vlms

router = APIRouter(prefix="/v1/images", tags=["images"])

IMAGES_PRIORITY = 10


@router.post(
    "",
    responses={202: {"model": Job, "description": "Not done within `wait`."}},
    dependencies=[SUBMIT],
)
async def generate(
    request: ImagesRequest, state: StateDep, caller: CallerDep, response: Response
) -> Job:
    """Images as a job's artifacts `image-SEED.png`; 202 when they are not ready in time."""
    spec = resolve_images(request, state.presets)
    await _check_loras(spec, state, caller)
    job_id = new_job_id()
    await state.queue.submit(
        job_id,
        generator=spec.generator,
        vlms=needed_vlms(spec),
        priority=IMAGES_PRIORITY,
        owner=caller.owner,
        fields=images_fields(spec),
        idempotency=None,
    )
    response.headers["Location"] = f"/v1/jobs/{job_id}"
    async for _ in state.events.follow(job_id, seconds=request.wait):
        pass
    job = await state.jobs.read(job_id)
    assert job is not None
    if not job.status.is_final:
        response.status_code = 202
    return await with_wait(job, state)


async def _check_loras(spec: ResolvedImagesSpec, state: State, caller: Caller) -> None:
    faults = [
        FieldError(field=f"loras.{index}.job", message=fault)
        for index, use in enumerate(spec.loras)
        if (fault := await lora_fault(use.job, spec.generator, state, caller))
    ]
    if faults:
        raise InvalidSpec(*faults)
