"""Files that come with a job's spec: they are stored before the job exists."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Mapping

from redis.exceptions import ConnectionError, RedisError, TimeoutError

from services.orchestrator.store import redis as keys
from services.orchestrator.store.artifacts import ArtifactStore, StoreUnavailable

log = logging.getLogger(__name__)

#: Claims count from 1, so no worker writes into the folder of uploads.
_CLAIM = "0"

#: A submission as old as this has been answered or was broken off.
_SETTLED_MS = 3_600_000


class Uploads:
    def __init__(self, redis: keys.Client, artifacts: ArtifactStore) -> None:
        self._redis = redis
        self._artifacts = artifacts

    @contextlib.asynccontextmanager
    async def submission(self, job_id: str, files: Mapping[str, bytes]) -> AsyncIterator[None]:
        """Stores a job's files by name. Submit the job inside this context; if it is not accepted,
        the files are deleted again. Raises ``StoreUnavailable``."""
        if not files:
            yield
            return
        try:
            await self._redis.zadd(keys.UPLOADS, {job_id: await self._now()})
            for name, data in files.items():
                await self._keep(job_id, name, data)
            yield
        except (ConnectionError, TimeoutError):
            # Redis may still make the job of the request that it received; ``settle_old`` checks
            # that later.
            raise
        except Exception:
            await self._try_to_settle(job_id)
            raise
        await self._try_to_settle(job_id)

    async def settle_old(self, limit: int) -> int:
        """Deletes the files of submissions that broke off; returns how many submissions were
        checked.

        Raises ``StoreUnavailable``.
        """
        until = await self._now() - _SETTLED_MS
        old = await self._redis.zrangebyscore(keys.UPLOADS, "-inf", until, 0, limit)
        for job_id in old:
            await self._settle(job_id)
        return len(old)

    async def _keep(self, job_id: str, name: str, data: bytes) -> None:
        artifact, path = await self._artifacts.put(job_id, _CLAIM, name, data)
        entry = f"{path} {artifact.model_dump_json()}"
        await self._redis.hset(keys.artifacts_key(job_id), name, entry)

    async def _settle(self, job_id: str) -> None:
        if not await self._redis.exists(keys.job_key(job_id)):
            await self._redis.delete(keys.artifacts_key(job_id))
            await self._artifacts.erase(job_id)
        await self._redis.zrem(keys.UPLOADS, job_id)

    async def _try_to_settle(self, job_id: str) -> None:
        try:
            await self._settle(job_id)
        except (RedisError, StoreUnavailable) as error:
            log.warning("job %s: its uploads will be checked later: %s", job_id, error)

    async def _now(self) -> int:
        seconds, micros = await self._redis.time()
        return int(seconds) * 1000 + int(micros) // 1000
