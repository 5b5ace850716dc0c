"""LoRAs of earlier jobs, for jobs that use them."""

from __future__ import annotations

from services.orchestrator.store.artifacts import LORA_FILE, ArtifactStore
from services.orchestrator.store.jobs import Jobs
from services.orchestrator.worker.files import read_file


async def read_lora(
    job_id: str, jobs: Jobs, artifacts: ArtifactStore, *, artifact: str = LORA_FILE
) -> bytes:
    """The file. Raises ``JobRefused`` when it is gone."""
    return await read_file(job_id, artifact, jobs, artifacts)
