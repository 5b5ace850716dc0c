"""LoRAs of earlier jobs, for jobs that use them."""

from __future__ import annotations

from services.orchestrator.store.artifacts import LORA_FILE, ArtifactStore
from services.orchestrator.store.jobs import Jobs
from services.orchestrator.worker.failures import JobRefused


async def read_lora(
    job_id: str, jobs: Jobs, artifacts: ArtifactStore, *, artifact: str = LORA_FILE
) -> bytes:
    """The file. Raises ``JobRefused`` when it is gone."""
    found = await jobs.artifact_path(job_id, artifact)
    if found is None:
        raise JobRefused(f"job {job_id} has no {artifact} any more")
    try:
        return await artifacts.read(found[1])
    except FileNotFoundError as error:
        raise JobRefused(f"{artifact} of job {job_id} is gone from the store") from error
