"""The LoRA that a job begins with: an earlier job's, or a file that comes with the spec."""

from __future__ import annotations

import asyncio

from dualprocess.schemas import FieldError, JobLoraSettings, LoraStart, ResolvedJobSpec
from services.common.errors import InvalidInput
from services.common.lora_layouts.families import examine
from services.orchestrator.api.auth import Caller
from services.orchestrator.api.lora_file import read_lora_header
from services.orchestrator.api.loras import lora_fault
from services.orchestrator.api.problems import InvalidSpec
from services.orchestrator.api.state import State
from services.orchestrator.store.artifacts import START_FILE


async def check_start(spec: ResolvedJobSpec, state: State, caller: Caller) -> list[str]:
    """The warnings about the job's start. Raises ``InvalidSpec`` for one that can't be used."""
    start = spec.lora.start
    if start is None:
        return []
    if start.file is not None:
        family = state.presets.generator(spec.generator).family
        # Outside of the event loop, since a header of 16 MiB takes seconds.
        return await asyncio.to_thread(_check_file, start.file, spec.lora, family)
    if start.job is not None:
        artifact = start.artifact
        if fault := await lora_fault(start.job, spec.generator, state, caller, artifact=artifact):
            raise _fault(".job", fault)
        if artifact != START_FILE:
            await _check_rank(start.job, spec, state)
    return []


def kept_start(spec: ResolvedJobSpec, job_id: str) -> tuple[ResolvedJobSpec, dict[str, bytes]]:
    """The spec as it is stored, and the job's files: a file that came with the spec becomes an
    artifact."""
    start = spec.lora.start
    if start is None or start.file is None:
        return spec, {}
    kept = LoraStart(job=job_id, artifact=START_FILE)
    stored = spec.model_copy(update={"lora": spec.lora.model_copy(update={"start": kept})})
    return stored, {START_FILE: start.file}


def _check_file(file: bytes, lora: JobLoraSettings, family: str) -> list[str]:
    try:
        header = read_lora_header(file)
        found = examine(header.shapes, header.metadata, family, lora.target_modules)
    except InvalidInput as error:
        raise _fault(".file", str(error)) from error
    faults = []
    if found.rank > lora.rank:
        message = f"the LoRA of lora.start has rank {found.rank}; write {found.rank} or more"
        faults.append(FieldError(field="lora.rank", message=message))
    if found.unnamed:
        message = (
            f"doesn't name {len(found.unnamed)} layers that lora.start adapts, like "
            f"{found.unnamed[0]}; write {found.targets}"
        )
        faults.append(FieldError(field="lora.target_modules", message=message))
    if faults:
        raise InvalidSpec(*faults)
    return [f"lora.start: {note}" for note in found.notes]


async def _check_rank(job_id: str, spec: ResolvedJobSpec, state: State) -> None:
    job = await state.jobs.read(job_id)
    assert job is not None
    rank = job.spec.lora.rank if isinstance(job.spec, ResolvedJobSpec) else 0
    if rank > spec.lora.rank:
        message = f"the LoRA of job {job_id} has rank {rank}; write {rank} or more"
        raise InvalidSpec(FieldError(field="lora.rank", message=message))


def _fault(place: str, message: str) -> InvalidSpec:
    return InvalidSpec(FieldError(field=f"lora.start{place}", message=message))
