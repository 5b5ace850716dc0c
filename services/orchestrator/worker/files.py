"""Files of jobs, for jobs that need them."""

from __future__ import annotations

from services.orchestrator.worker.failures import JobRefused
from services.orchestrator.worker.lease import Lease
from services.orchestrator.worker.stores import Stores


async def read_file(job_id: str, name: str, stores: Stores, lease: Lease) -> bytes:
    """The file; while the store is away the job says so. Raises ``JobRefused`` when it is gone,
    and as ``Lease.patiently`` does."""
    found = await stores.jobs.artifact_path(job_id, name)
    if found is None:
        raise JobRefused(f"job {job_id} has no {name} any more")
    _, path = found
    try:
        return await lease.patiently(lambda: stores.artifacts.read(path))
    except FileNotFoundError as error:
        raise JobRefused(f"{name} of job {job_id} is gone from the store") from error
