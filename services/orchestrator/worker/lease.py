"""A claim that is kept alive while its job runs."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NoReturn, TypeVar

from redis.exceptions import RedisError

from dualprocess.schemas import (
    Artifact,
    ArtifactEvent,
    Event,
    JobStatus,
    StatusEvent,
    WarningEvent,
)
from services.orchestrator.pauses import pause
from services.orchestrator.store.artifacts import ArtifactStore, StoreUnavailable
from services.orchestrator.store.queue import Claim, LeaseLost, Owned, Queue
from services.orchestrator.worker.failures import JobStopped

log = logging.getLogger(__name__)

Used = TypeVar("Used")

#: Between tries to use the artifact store; then always the last.
_RETRY_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class Lease:
    """What a worker may do about its job. Each call raises ``LeaseLost`` once it may not.

    ``warnings`` are what its owner was told before. ``cancel_wanted`` is set when a user asked for
    the job's end, or its deadline is over.
    """

    def __init__(
        self,
        claim: Claim,
        queue: Queue,
        artifacts: ArtifactStore,
        *,
        attempt: int,
        warnings: Sequence[str] = (),
    ) -> None:
        self.claim = claim
        self.attempt = attempt
        self._warnings = list(warnings)
        self.cancel_wanted = asyncio.Event()
        self._queue = queue
        self._artifacts = artifacts

    async def keep(self, every: float) -> NoReturn:
        """Renews until it is cancelled, or refused: then raises ``LeaseLost``."""
        while True:
            await asyncio.sleep(every)
            try:
                owned = await self._queue.renew(self.claim)
            except RedisError as error:
                # Nobody else can take the job while Redis is away or takes no writes.
                log.warning(
                    "job %s: its lease can't be renewed while Redis is away: %s",
                    self.claim.job_id,
                    error,
                )
                continue
            if owned is Owned.LOST:
                raise LeaseLost(self.claim.job_id)
            if owned is Owned.CANCEL_WANTED:
                self.cancel_wanted.set()

    async def record(
        self,
        event: Event | None = None,
        *,
        fields: Mapping[str, str] | None = None,
        cause: str = "",
    ) -> None:
        """Appends an event and a cause, and sets fields of the job, at once."""
        if await self._queue.record(self.claim, event=event, fields=fields, cause=cause):
            self.cancel_wanted.set()

    async def warn(self, sentence: str) -> None:
        """Adds a warning to the job, once."""
        if sentence not in self._warnings:
            self._warnings.append(sentence)
            fields = {"warnings": json.dumps(self._warnings)}
            await self.record(WarningEvent(message=sentence), fields=fields)

    async def store(self, name: str, data: bytes) -> Artifact:
        """Keeps a file of the job, and says so. Raises as ``patiently`` does."""
        artifact, path = await self.patiently(
            lambda: self._artifacts.put(self.claim.job_id, self.claim.token, name, data)
        )
        await self._queue.record(
            self.claim, artifact=(artifact, path), event=ArtifactEvent(artifact=artifact)
        )
        return artifact

    async def patiently(self, use: Callable[[], Awaitable[Used]]) -> Used:
        """Reads or writes in the artifact store as soon as that does it; the job says it waits.

        Raises ``JobStopped`` when a cancel is wanted while it can't.
        """
        tries = 0
        while True:
            try:
                used = await use()
            except StoreUnavailable as error:
                if self.cancel_wanted.is_set():
                    raise JobStopped from error
                if tries == 0:
                    await self.waits_for(f"the artifact store, which is full or away: {error}")
            else:
                if tries:
                    await self.waits_for(None)
                return used
            await pause(_RETRY_SECONDS[min(tries, len(_RETRY_SECONDS) - 1)], self.cancel_wanted)
            tries += 1

    async def waits_for(self, reason: str | None) -> None:
        """The job can't go on without something; ``None`` when it goes on."""
        event = StatusEvent(status=JobStatus.RUNNING, attempt=self.attempt, waiting_for=reason)
        await self.record(event, fields={"waiting_for": reason or ""})
