"""What is kept of ended jobs, and for how long."""

from __future__ import annotations

from services.orchestrator.store import redis as keys
from services.orchestrator.store.artifacts import ArtifactStore
from services.orchestrator.store.deletion import Deletion
from services.orchestrator.store.jobs import Jobs
from services.orchestrator.store.uploads import Uploads

_DAY_MS = 86_400_000
#: How many of each kind are deleted in one sweep, so that it never delays other work for long.
_BATCH = 20


class Retention:
    """Jobs go ``days`` after their end, their events ``events_days`` after it; 0 is for ever.

    Of the events the last one stays, which says how the job ended; the steps are in
    ``metrics.jsonl``. Checkpoints go when a job ends; those that were missed go with the events.
    Files that came with a spec go when their job was never accepted.
    """

    def __init__(
        self,
        redis: keys.Client,
        artifacts: ArtifactStore,
        *,
        days: float,
        events_days: float,
    ) -> None:
        self._redis = redis
        self._jobs = Jobs(redis)
        self._artifacts = artifacts
        self._deletion = Deletion(redis, artifacts)
        self._uploads = Uploads(redis, artifacts)
        self._days = days
        self._events_days = events_days

    async def sweep(self) -> bool:
        """Deletes one batch; true if more is due. Raises ``StoreUnavailable``."""
        jobs = await self._ended(keys.FINISHED, self._days)
        for job_id in jobs:
            await self._deletion.forget(job_id)
        await self._deletion.erase_rest(_BATCH)
        events = await self._ended(keys.FINISHED_EVENTS, self._events_days)
        for job_id in events:
            checkpoints = await self._jobs.checkpoints(job_id)
            await self._artifacts.delete([one.path for one in checkpoints])
            await self._redis.xtrim(keys.events_key(job_id), maxlen=1, approximate=False)
            await self._redis.zrem(keys.FINISHED_EVENTS, job_id)
        uploads = await self._uploads.settle_old(_BATCH)
        return _BATCH in (len(jobs), len(events), uploads)

    async def _ended(self, index: str, days: float) -> list[str]:
        if days == 0:
            return []
        seconds, _ = await self._redis.time()
        until = seconds * 1000 - days * _DAY_MS
        found: list[str] = await self._redis.zrangebyscore(index, "-inf", until, 0, _BATCH)
        return found
