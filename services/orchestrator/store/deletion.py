"""Takes a job out of Redis and out of the artifact store."""

from __future__ import annotations

import logging

from dualprocess.schemas import JobStatus
from services.orchestrator.store import redis as keys
from services.orchestrator.store.artifacts import ArtifactStore, StoreUnavailable
from services.orchestrator.store.scripts import script

log = logging.getLogger(__name__)


class Deletion:
    """Redis deletes a job at once; its files are deleted after it, if need be once the store is
    back."""

    def __init__(self, redis: keys.Client, artifacts: ArtifactStore) -> None:
        self._redis = redis
        self._artifacts = artifacts
        self._delete = script(redis, "delete")

    async def delete(self, job_id: str) -> JobStatus | None:
        """Returns the job's status before; ``None`` if there is no job. Only a job that has ended
        is deleted."""
        before = await self.forget(job_id)
        if before is not None and before.is_final:
            await self._erase(job_id)
        return before

    async def forget(self, job_id: str) -> JobStatus | None:
        """As ``delete``, but ``erase_rest`` deletes its files."""
        before = await self._delete(
            keys=[
                keys.job_key(job_id),
                keys.events_key(job_id),
                keys.artifacts_key(job_id),
                keys.causes_key(job_id),
                keys.JOBS,
                keys.DELETED,
            ],
            args=[job_id],
        )
        return None if before is None else JobStatus(before)

    async def erase_rest(self, limit: int) -> None:
        """Files of jobs that were forgotten, or deleted while the store was away or by a process
        that died; up to the first that the store keeps."""
        for job_id in await self._redis.srandmember(keys.DELETED, limit):
            if not await self._erase(job_id):
                return

    async def _erase(self, job_id: str) -> bool:
        try:
            await self._artifacts.erase(job_id)
        except StoreUnavailable as error:
            log.warning("job %s: its files can't be deleted yet: %s", job_id, error)
            return False
        await self._redis.srem(keys.DELETED, job_id)
        return True
