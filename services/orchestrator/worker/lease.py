"""A claim that is kept alive while its job runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import NoReturn

from redis.exceptions import ConnectionError, TimeoutError

from dualprocess.schemas import (
    Artifact,
    ArtifactEvent,
    JobStatus,
    PreviewEvent,
    StatusEvent,
    StepEvent,
)
from services.orchestrator.store.artifacts import ArtifactStore
from services.orchestrator.store.queue import Claim, LeaseLost, Owned, Queue

log = logging.getLogger(__name__)


class Lease:
    """What a worker may do about its job. Each call raises ``LeaseLost`` once it may not.

    ``cancel_wanted`` is set when a user asked for the job's end.
    """

    def __init__(
        self, claim: Claim, queue: Queue, artifacts: ArtifactStore, *, attempt: int
    ) -> None:
        self.claim = claim
        self.attempt = attempt
        self.cancel_wanted = asyncio.Event()
        self._queue = queue
        self._artifacts = artifacts

    async def keep(self, every: float) -> NoReturn:
        """Renews until it is cancelled, or refused: then raises ``LeaseLost``."""
        while True:
            await asyncio.sleep(every)
            try:
                owned = await self._queue.renew(self.claim)
            except (ConnectionError, TimeoutError):
                # Nobody else can take the job while Redis is away.
                log.warning("job %s: Redis is away, its lease waits", self.claim.job_id)
                continue
            if owned is Owned.LOST:
                raise LeaseLost(self.claim.job_id)
            if owned is Owned.CANCEL_WANTED:
                self.cancel_wanted.set()

    async def record(
        self,
        event: StatusEvent | StepEvent | PreviewEvent | None = None,
        *,
        fields: Mapping[str, str] | None = None,
    ) -> None:
        """Appends an event and sets fields of the job, at once."""
        if await self._queue.record(self.claim, event=event, fields=fields):
            self.cancel_wanted.set()

    async def store(self, name: str, data: bytes) -> Artifact:
        """Keeps a file of the job, and says so."""
        artifact, path = await self._artifacts.put(self.claim.job_id, self.claim.token, name, data)
        await self._queue.record(
            self.claim, artifact=(artifact, path), event=ArtifactEvent(artifact=artifact)
        )
        return artifact

    async def waits_for(self, reason: str | None) -> None:
        """The job can't go on without something; ``None`` when it goes on."""
        event = StatusEvent(status=JobStatus.RUNNING, attempt=self.attempt, waiting_for=reason)
        await self.record(event, fields={"waiting_for": reason or ""})
