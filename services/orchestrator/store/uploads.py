"""Files that come with a job's spec: artifacts that are there before the job is."""

from __future__ import annotations

from services.orchestrator.store import redis as keys
from services.orchestrator.store.artifacts import ArtifactStore

#: Claims count from 1: no worker writes where uploads lie.
_TOKEN = 0


class Uploads:
    def __init__(self, redis: keys.Client, artifacts: ArtifactStore) -> None:
        self._redis = redis
        self._artifacts = artifacts

    async def keep(self, job_id: str, name: str, data: bytes) -> None:
        """Stores a file of a job that is about to be submitted."""
        artifact, path = await self._artifacts.put(job_id, _TOKEN, name, data)
        entry = f"{path} {artifact.model_dump_json()}"
        await self._redis.hset(keys.artifacts_key(job_id), name, entry)

    async def discard(self, job_id: str) -> None:
        """Takes all of them back: the job was not accepted after all."""
        entries = await self._redis.hvals(keys.artifacts_key(job_id))
        await self._redis.delete(keys.artifacts_key(job_id))
        await self._artifacts.delete([entry.partition(" ")[0] for entry in entries])
