"""``/v1/images``: a short job with a higher priority in the same queue."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Response

from dualprocess.schemas import (
    FieldError,
    ImagesRequest,
    Job,
    ResolvedImagesSpec,
)
from services.orchestrator.api import short_jobs
from services.orchestrator.api.auth import SUBMIT, Caller, CallerDep
from services.orchestrator.api.loras import lora_fault
from services.orchestrator.api.problems import InvalidSpec
from services.orchestrator.api.reading import warnings
from services.orchestrator.api.resolve import resolve_images
from services.orchestrator.api.state import State, StateDep
from services.orchestrator.store.jobs import images_fields, needed_vlms

router = APIRouter(prefix="/v1/images", tags=["images"])


@router.post(
    "",
    responses={202: {"model": Job, "description": "Not done within `wait` seconds."}},
    dependencies=[SUBMIT],
)
async def generate(
    request: ImagesRequest, state: StateDep, caller: CallerDep, response: Response
) -> Job:
    """Makes images, which are a job's artifacts `image-SEED.png`; 202 if they are not done in
    time."""
    spec = await asyncio.to_thread(resolve_images, request, state.presets)
    await _check_loras(spec, state, caller)
    preset = state.presets.generator(spec.generator)
    told = await asyncio.to_thread(warnings, preset, [spec.prompt], spec.image)
    return await short_jobs.run(
        images_fields(spec, told),
        state,
        caller,
        response,
        generator=spec.generator,
        vlms=needed_vlms(spec),
        wait=request.wait,
    )


async def _check_loras(spec: ResolvedImagesSpec, state: State, caller: Caller) -> None:
    faults = [
        FieldError(field=f"loras.{index}.job", message=fault)
        for index, use in enumerate(spec.loras)
        if (fault := await lora_fault(use.job, spec.generator, state, caller))
    ]
    if faults:
        raise InvalidSpec(*faults)
