"""Work for all jobs: ends overdue ones, deletes old ones, and logs once which settings of this
Redis may lose jobs.

Every worker and every API process does it, so it is done while any of them lives; each step is
one atomic script or may be done twice.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from redis.exceptions import ConnectionError, TimeoutError

from services.common.redis_state import look
from services.orchestrator.pauses import pause
from services.orchestrator.retention import Retention
from services.orchestrator.settings import StoreSettings
from services.orchestrator.store.artifacts import ArtifactStore, StoreUnavailable
from services.orchestrator.store.queue import Queue
from services.orchestrator.store.redis import Client

log = logging.getLogger(__name__)


class Housekeeping:
    """Looks for overdue jobs every ``poll_seconds``, and for old ones every
    ``settings.sweep_seconds``, or every ``poll_seconds`` while more of them are due."""

    def __init__(
        self,
        settings: StoreSettings,
        redis: Client,
        artifacts: ArtifactStore,
        *,
        poll_seconds: float,
    ) -> None:
        self._redis = redis
        self._is_looked_at = False
        self._queue = Queue(redis)
        self._retention = Retention(
            redis, artifacts, days=settings.keep_days, events_days=settings.keep_events_days
        )
        self._poll_seconds = poll_seconds
        self._sweep_seconds = settings.sweep_seconds
        self._next_sweep = 0.0

    async def run(self, stopping: asyncio.Event) -> None:
        """Until ``stopping``. A store that hangs holds no overdue job up."""
        await asyncio.gather(
            self._again_and_again(self._end_overdue, stopping),
            self._again_and_again(self._sweep, stopping),
        )

    async def _again_and_again(
        self, task: Callable[[], Awaitable[None]], stopping: asyncio.Event
    ) -> None:
        while not stopping.is_set():
            try:
                await task()
            except (ConnectionError, TimeoutError) as error:
                log.warning("Redis is away: %s", error)
            except StoreUnavailable as error:
                log.warning("the artifact store is away: %s", error)
            except Exception:
                # One job that can't be read must not stop the work for all others.
                log.exception("housekeeping failed by a mistake of the service")
            await pause(self._poll_seconds, stopping)

    async def _end_overdue(self) -> None:
        if not self._is_looked_at:
            for finding in (await look(self._redis)).findings:
                log.warning("%s", finding)
            self._is_looked_at = True
        for job_id in await self._queue.end_overdue():
            log.info("job %s: failed: its deadline passed", job_id)

    async def _sweep(self) -> None:
        if time.monotonic() >= self._next_sweep:
            self._next_sweep = time.monotonic() + self._sweep_seconds
            if await self._retention.sweep():
                self._next_sweep = 0.0
