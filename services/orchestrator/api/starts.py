"""The LoRA that a job begins with: an earlier job's, or a file that comes with the spec."""

from __future__ import annotations

import asyncio

from dualprocess.schemas import FieldError, LoraStart, ResolvedJobSpec
from services.common.errors import InvalidInput
from services.orchestrator.api.auth import Caller
from services.orchestrator.api.lora_file import check_lora_file
from services.orchestrator.api.loras import lora_fault
from services.orchestrator.api.problems import InvalidSpec
from services.orchestrator.api.state import State
from services.orchestrator.store.artifacts import START_FILE


async def check_start(spec: ResolvedJobSpec, state: State, caller: Caller) -> None:
    """Raises ``InvalidSpec`` for a start that can't be."""
    start = spec.lora.start
    if start is None:
        return
    if spec.lora.weight == 0:
        raise _fault("", "has no effect at a lora.weight of 0; write another weight")
    if start.file is not None:
        try:
            # A header of 16 MiB is seconds of work: off the event loop.
            await asyncio.to_thread(check_lora_file, start.file)
        except InvalidInput as error:
            raise _fault(".file", str(error)) from error
    elif start.job is not None:
        artifact = start.artifact
        if fault := await lora_fault(start.job, spec.generator, state, caller, artifact=artifact):
            raise _fault(".job", fault)
        if artifact != START_FILE:
            await _check_rank(start.job, spec, state)


def kept_start(spec: ResolvedJobSpec, job_id: str) -> tuple[ResolvedJobSpec, dict[str, bytes]]:
    """The spec as it is stored, and the job's files: one that came with the spec is an artifact
    from now on."""
    start = spec.lora.start
    if start is None or start.file is None:
        return spec, {}
    kept = LoraStart(job=job_id, artifact=START_FILE)
    stored = spec.model_copy(update={"lora": spec.lora.model_copy(update={"start": kept})})
    return stored, {START_FILE: start.file}


async def _check_rank(job_id: str, spec: ResolvedJobSpec, state: State) -> None:
    job = await state.jobs.read(job_id)
    assert job is not None
    rank = job.spec.lora.rank if isinstance(job.spec, ResolvedJobSpec) else 0
    if rank > spec.lora.rank:
        message = f"the LoRA of job {job_id} has rank {rank}; write {rank} or more"
        raise InvalidSpec(FieldError(field="lora.rank", message=message))


def _fault(place: str, message: str) -> InvalidSpec:
    return InvalidSpec(FieldError(field=f"lora.start{place}", message=message))
