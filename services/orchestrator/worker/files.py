"""Files of jobs, for jobs that need them."""

from __future__ import annotations

from services.orchestrator.store.artifacts import ArtifactStore
from services.orchestrator.store.jobs import Jobs
from services.orchestrator.worker.failures import JobRefused


async def read_file(job_id: str, name: str, jobs: Jobs, artifacts: ArtifactStore) -> bytes:
    """The file. Raises ``JobRefused`` when it is gone."""
    found = await jobs.artifact_path(job_id, name)
    if found is None:
        raise JobRefused(f"job {job_id} has no {name} any more")
    try:
        return await artifacts.read(found[1])
    except FileNotFoundError as error:
        raise JobRefused(f"{name} of job {job_id} is gone from the store") from error
