"""The newest checkpoints of a job, for whoever goes on with it.

They are no artifacts: a user has no use for them, and they go when the job ends.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from services.orchestrator.store.artifacts import StoreUnavailable
from services.orchestrator.store.checkpoints import KEPT, StoredCheckpoint, dump
from services.orchestrator.store.queue import LeaseLost
from services.orchestrator.worker.lease import Lease
from services.orchestrator.worker.stores import Stores

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SavedCheckpoint:
    """How many steps were done, and the file."""

    step: int
    data: bytes


class Checkpoints:
    """Those of the job under ``lease``. Writing raises ``LeaseLost``."""

    def __init__(self, lease: Lease, stores: Stores) -> None:
        self._lease = lease
        self._stores = stores

    async def keep(self, step: int, data: bytes) -> None:
        """Stores a checkpoint after so many steps; only the newest two stay."""
        claim = self._lease.claim
        stored = await self._lease.patiently(
            lambda: self._stores.artifacts.put_checkpoint(claim.job_id, claim.token, step, data)
        )
        known = await self._stores.jobs.checkpoints(claim.job_id)
        newest = [stored, *(one for one in known if one.step < step)]
        try:
            await self._replace(known, newest[:KEPT])
        except LeaseLost:
            await _delete(claim.job_id, [stored], self._stores)
            raise

    async def newest(self) -> SavedCheckpoint | None:
        """The newest checkpoint that is complete. A damaged one is dropped, and the job's causes
        say so."""
        for stored in await self._stores.jobs.checkpoints(self._lease.claim.job_id):
            data = await self._lease.patiently(
                partial(self._stores.artifacts.read_checkpoint, stored)
            )
            if data is not None:
                return SavedCheckpoint(stored.step, data)
            await self.drop(stored.step, "its file is damaged or gone")
        return None

    async def drop(self, step: int, why: str) -> None:
        """Drops this checkpoint: it can't be used."""
        cause = f"the checkpoint after step {step} could not be used: {why}"
        log.warning("job %s: %s", self._lease.claim.job_id, cause)
        known = await self._stores.jobs.checkpoints(self._lease.claim.job_id)
        await self._replace(known, [one for one in known if one.step != step], cause)

    async def _replace(
        self, old: list[StoredCheckpoint], new: list[StoredCheckpoint], cause: str = ""
    ) -> None:
        await self._lease.record(fields={"checkpoints": dump(new)}, cause=cause)
        gone = [one for one in old if one not in new]
        await _delete(self._lease.claim.job_id, gone, self._stores)


async def discard(job_id: str, stores: Stores) -> None:
    """Deletes the checkpoints of a job that has ended."""
    await _delete(job_id, await stores.jobs.checkpoints(job_id), stores)


async def _delete(job_id: str, checkpoints: Sequence[StoredCheckpoint], stores: Stores) -> None:
    """What the store can't delete now is deleted with the job."""
    try:
        await stores.artifacts.delete([one.path for one in checkpoints])
    except StoreUnavailable as error:
        log.warning("job %s: old checkpoints can't be deleted yet: %s", job_id, error)
