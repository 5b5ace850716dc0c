"""Whether an earlier job's LoRA can be used by a job of one generator."""

from __future__ import annotations

from services.orchestrator.api.auth import Caller
from services.orchestrator.api.state import State
from services.orchestrator.store.artifacts import LORA_FILE


async def lora_fault(
    job_id: str, generator: str, state: State, caller: Caller, *, artifact: str = LORA_FILE
) -> str | None:
    """Why it can't be used; ``None`` if it can."""
    job = await state.job(job_id, caller)
    if job is None:
        return f"there is no job {job_id}"
    if not any(one.name == artifact for one in job.artifacts):
        missing = "LoRA" if artifact == LORA_FILE else artifact
        return f"job {job_id} is {job.status} and has no {missing}; name one that has"
    if job.generator != generator:
        return f"job {job_id} trained {job.generator}; its LoRA does not fit {generator}"
    return None
