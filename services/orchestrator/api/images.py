"""``/v1/images``: a short job with a higher priority in the same queue."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Response

from dualprocess.schemas import DryRun, ImagesRequest, Job
from services.orchestrator.api import short_jobs
from services.orchestrator.api.auth import SUBMIT, CallerDep
from services.orchestrator.api.dry_runs import IsDry, dry_run
from services.orchestrator.api.json_route import JsonRoute
from services.orchestrator.api.quotas import check_work
from services.orchestrator.api.reading import warnings
from services.orchestrator.api.resolve import resolve_images
from services.orchestrator.api.state import StateDep
from services.orchestrator.api.used_loras import check_used, kept_used
from services.orchestrator.store.ids import new_job_id
from services.orchestrator.store.jobs import images_fields, needed_vlms
from services.orchestrator.work import images_work

router = APIRouter(prefix="/v1/images", tags=["images"], route_class=JsonRoute)


@router.post(
    "",
    responses={202: {"model": Job, "description": "Not done within `wait` seconds."}},
    dependencies=[SUBMIT],
)
async def generate(
    request: ImagesRequest,
    state: StateDep,
    caller: CallerDep,
    response: Response,
    is_dry: IsDry = False,
) -> Job | DryRun:
    """Makes images, which are a job's artifacts `image-SEED.png`; 202 if they are not done in
    time."""
    spec = await asyncio.to_thread(resolve_images, request, state.presets)
    preset = state.presets.generator(spec.generator)
    work = images_work(spec, preset)
    check_work(caller, work, state.max_job_work)
    job_id = new_job_id()
    of_loras = await check_used(spec.loras, spec.generator, state, caller)
    spec.loras, files = kept_used(spec.loras, job_id)
    unread = await asyncio.to_thread(warnings, preset, [spec.prompt], spec.image)
    told = [*of_loras, *unread]
    if is_dry:
        return await dry_run(
            work,
            state,
            caller,
            needs=[(spec.generator, needed_vlms(spec))],
            priority=short_jobs.PRIORITY,
            spec=spec,
            warnings=told,
        )
    return await short_jobs.run(
        await asyncio.to_thread(images_fields, spec, work, told),
        work,
        state,
        caller,
        response,
        generator=spec.generator,
        vlms=needed_vlms(spec),
        wait=request.wait,
        job_id=job_id,
        files=files,
    )
