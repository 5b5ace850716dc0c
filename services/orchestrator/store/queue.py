"""The lease queue: submit, claim, renew, record, finish, requeue, cancel.

Each is one Lua script on Redis's clock. Whoever claims a job gets a token, and must send it with
every write about that job. A write is refused once there is a newer claim or the lease is over. So
a worker whose lease ran out can't harm the job's next owner.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Any

from dualprocess.schemas import Artifact, Event, JobStatus, StatusEvent
from services.orchestrator.metrics import ATTEMPTS_RETRIED, JOBS_ENDED, LEASES_EXPIRED
from services.orchestrator.store import redis as keys
from services.orchestrator.store.origins import origin_fields
from services.orchestrator.store.quotas import known_or_exceeded
from services.orchestrator.store.scripts import script
from services.orchestrator.store.workers import DEVICE_SECONDS

log = logging.getLogger(__name__)

#: A job's stream is cut to about this many events; a job of 10,000 steps fits.
EVENTS_KEPT = 20_000

_BATCH = 100

IDEMPOTENCY_SECONDS = 24 * 3600

_SCRIPTS = (
    "submit",
    "claim",
    "renew",
    "record",
    "finish",
    "expired",
    "requeue",
    "promote",
    "cancel",
    "overdue",
)


# There from the start, at 0: what begins with its first job has no rate.
for _status in JobStatus:
    if _status.is_final:
        JOBS_ENDED.labels(_status)


class LeaseLost(Exception):
    """The job has another owner now. Nothing more may be written about it."""


class Owned(IntEnum):
    """What the scripts answer an owner."""

    LOST = 0
    KEPT = 1
    CANCEL_WANTED = 2


class Blame(StrEnum):
    """Whether the end of an attempt counts against the job."""

    #: It counts as one of the job's attempts.
    JOB = "job"
    #: The cause may be another job on the same generator: the first such end doesn't count, and the
    #: job runs alone from then on.
    NEIGHBOUR = "neighbour"
    #: Perhaps the device's: it doesn't count, and the job goes to another device if there is one.
    #: If two devices, or one twice, failed it without a newer checkpoint between, the job fails.
    DEVICE = "device"
    NOBODY = "nobody"
    #: The worker's, which is older than the job. This is no attempt, and the cause is written once.
    OLD_WORKER = "old worker"


for _blame in Blame:
    ATTEMPTS_RETRIED.labels(_blame)


@dataclass(frozen=True)
class Claim:
    """A job under a lease; ``alone`` if no other job may run on its generator meanwhile. No two
    claims have the same ``token``, even if Redis loses data. The job waited in its queue for
    ``waited_seconds``."""

    job_id: str
    token: str
    alone: bool = False
    waited_seconds: float = field(default=0.0, compare=False)


@dataclass(frozen=True)
class Ahead:
    """Jobs of one queue: those that come before a new one, and those that run."""

    waiting: int
    running: int


class Queue:
    """``lease_ms`` is how long a claim lasts without renewal. ``waits_ms`` is how long a worker
    counts as waiting after it asked for a job; it must be longer than its pause between two
    asks."""

    def __init__(self, redis: keys.Client, *, lease_ms: int = 30_000, waits_ms: int = 1000) -> None:
        self._redis = redis
        self._lease_ms = lease_ms
        self._waits_ms = waits_ms
        #: Owner → the name of its ask that was not answered yet.
        self._asks: dict[str, str] = {}
        self._scripts = {name: script(redis, name) for name in _SCRIPTS}

    async def submit(
        self,
        job_id: str,
        *,
        generator: str,
        vlms: Collection[str],
        priority: int,
        owner: str,
        fields: Mapping[str, str],
        idempotency: tuple[str, str] | None,
    ) -> tuple[str, str]:
        """Stores and queues a job of ``owner``, the id of an API key.

        ``idempotency`` is a client's key and the hash of its request. Returns the id of the job
        that belongs to the key, which may be an earlier one, and the hash of the request that made
        it. Raises ``QuotaExceeded`` when the owner would have more queued jobs, or ``WorkExceeded``
        more work, than it may have.
        """
        key, digest = idempotency or (job_id, "")
        stored = {**fields, **origin_fields()}
        flat = [item for pair in stored.items() for item in pair]
        queued = StatusEvent(status=JobStatus.QUEUED).model_dump_json()
        known = await self._scripts["submit"](
            keys=[
                keys.job_key(job_id),
                keys.queue_key(generator, vlms),
                keys.JOBS,
                keys.SEQUENCE,
                keys.events_key(job_id),
                keys.QUEUES,
                keys.idempotency_key(owner, key),
                keys.api_key_key(owner),
            ],
            args=[
                *(job_id, priority, digest, IDEMPOTENCY_SECONDS, queued, owner),
                fields.get("work", "0"),
                *flat,
            ],
        )
        known_id, known_digest = known_or_exceeded(known)
        if known_id == job_id:
            log.info("job %s: queued", job_id)
        return known_id, known_digest

    async def claim(
        self, owner: str, queues: Iterable[str], *, running: int = 0, device: str = ""
    ) -> Claim | None:
        """The next job of these queues, or ``None`` when all are empty.

        ``running`` is how many jobs ``owner`` runs. If it runs any, ``None`` can also mean that the
        next job must run alone, or is left to a waiting worker that runs fewer. A job that failed
        on ``device`` is left to another device that could do it, if one is there or was there
        recently. If Redis did not answer, the call can be repeated: it returns what the first one
        claimed.
        """
        ask = self._asks.setdefault(owner, secrets.token_hex(8))
        claimed = await self._scripts["claim"](
            keys=[
                keys.LEASES,
                keys.FENCE,
                keys.JOBS,
                keys.claimed_key(owner),
                keys.WAITING,
                keys.DEVICES,
                *queues,
            ],
            args=[
                owner,
                self._lease_ms,
                keys.job_key(""),
                keys.api_key_key(""),
                running,
                ask,
                self._waits_ms,
                device,
                DEVICE_SECONDS,
            ],
        )
        del self._asks[owner]
        if not claimed:
            return None
        job_id, token, alone, waited_ms = claimed
        return Claim(job_id, token, bool(alone), waited_ms / 1000)

    async def leave(self, owner: str) -> None:
        """Notes that ``owner`` no longer waits for jobs."""
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.hdel(keys.WAITING, owner)
            pipe.delete(keys.claimed_key(owner))
            await pipe.execute()

    async def served_by(self, generator: str, vlms: Collection[str]) -> list[str]:
        """The queues whose jobs need this generator, or none, and no other VLM than these."""
        queues = sorted(await self._redis.smembers(keys.QUEUES))
        needs = {queue: keys.queue_needs(queue) for queue in queues}
        able = set(vlms)
        mine = ("", generator)
        return [queue for queue, need in needs.items() if need[0] in mine and need[1] <= able]

    async def ahead(self, generator: str, vlms: Collection[str], *, priority: int) -> Ahead:
        """What a new job with this priority would find in its queue."""
        queue = keys.queue_key(generator, vlms)
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.get(keys.SEQUENCE)
            pipe.zrange(keys.jobs_key(status=JobStatus.RUNNING), 0, -1)
            last, running = await pipe.execute()
        async with self._redis.pipeline(transaction=False) as pipe:
            # As enqueue.lua ranks it.
            pipe.zcount(queue, "-inf", int(last or 0) - priority * 10**12)
            for job_id in running:
                pipe.hget(keys.job_key(job_id), "queue")
            waiting, *theirs = await pipe.execute()
        return Ahead(waiting, theirs.count(queue))

    async def renew(self, claim: Claim) -> Owned:
        return Owned(
            await self._scripts["renew"](
                keys=[keys.job_key(claim.job_id), keys.LEASES],
                args=[claim.job_id, claim.token, self._lease_ms],
            )
        )

    async def record(
        self,
        claim: Claim,
        *,
        event: Event | None = None,
        artifact: tuple[Artifact, str] | None = None,
        fields: Mapping[str, str] | None = None,
        cause: str = "",
    ) -> bool:
        """Writes what the owner reports; true if a cancel is wanted.

        ``artifact`` is a file and where it is stored. A field with an empty value is removed.
        ``cause`` is a problem that does not end the attempt. Raises ``LeaseLost``.
        """
        name, entry = "", ""
        if artifact:
            described, path = artifact
            name, entry = described.name, f"{path} {described.model_dump_json()}"
        owned = Owned(
            await self._scripts["record"](
                keys=[
                    keys.job_key(claim.job_id),
                    keys.LEASES,
                    keys.events_key(claim.job_id),
                    keys.artifacts_key(claim.job_id),
                    keys.causes_key(claim.job_id),
                ],
                args=[
                    claim.job_id,
                    claim.token,
                    EVENTS_KEPT,
                    event.model_dump_json(exclude_none=True) if event else "",
                    name,
                    entry,
                    cause,
                    secrets.token_hex(8),
                    *[item for pair in (fields or {}).items() for item in pair],
                ],
            )
        )
        if owned is Owned.LOST:
            raise LeaseLost(claim.job_id)
        return owned is Owned.CANCEL_WANTED

    async def finish(self, claim: Claim, status: JobStatus, error: str = "") -> None:
        """Ends the job. Raises ``LeaseLost``."""
        done = await self._scripts["finish"](
            keys=[
                keys.job_key(claim.job_id),
                keys.LEASES,
                keys.events_key(claim.job_id),
                keys.JOBS,
            ],
            args=[claim.job_id, claim.token, status, error],
        )
        if not done:
            raise LeaseLost(claim.job_id)
        JOBS_ENDED.labels(status).inc()

    async def requeue(
        self,
        claim: Claim,
        cause: str,
        *,
        attempts: int,
        pause_ms: int,
        expired: bool = False,
        blame: Blame = Blame.JOB,
        device: str = "",
    ) -> JobStatus | None:
        """Ends the attempt for ``cause``; the job's status then, or ``None`` when it is not ours.

        The job fails after ``attempts`` that count, in a row, without a newer checkpoint.
        ``pause_ms`` is the pause after the first of them; it doubles with each. ``device`` is the
        device on which the attempt failed. Without ``expired`` the caller owns the lease; with it,
        the lease must be over, and ``expired()`` must have been asked in the last half of a lease.
        """
        status = await self._scripts["requeue"](
            keys=[
                keys.job_key(claim.job_id),
                keys.LEASES,
                keys.events_key(claim.job_id),
                keys.DELAYED,
                keys.causes_key(claim.job_id),
                keys.JOBS,
                keys.LOOKED,
            ],
            args=[
                claim.job_id,
                claim.token,
                cause,
                attempts,
                pause_ms,
                "expired" if expired else "owner",
                blame,
                self._lease_ms,
                device,
            ],
        )
        if not status:
            return None
        if expired:
            LEASES_EXPIRED.inc()
        if JobStatus(status).is_final:
            JOBS_ENDED.labels(status).inc()
        else:
            ATTEMPTS_RETRIED.labels(blame).inc()
        return JobStatus(status)

    async def promote(self) -> None:
        """Puts jobs whose pause is over back into their queues."""
        await self._scripts["promote"](keys=[keys.DELAYED], args=[keys.job_key("")])

    async def expired(self) -> list[tuple[Claim, str]]:
        """Claims whose lease is over, and who held each.

        To be asked several times in half a lease: after a longer gap, as when Redis was away,
        no lease is over, and each lasts for one more.
        """
        over = await self._scripts["expired"](
            keys=[keys.LEASES, keys.LOOKED], args=[self._lease_ms, keys.job_key("")]
        )
        return [(Claim(job_id, token), owner) for job_id, token, owner in over]

    async def end_overdue(self) -> list[str]:
        """Queued jobs past their deadline fail; the owners of running ones are asked to stop.

        Returns the ids of those that failed. At most so many at once; the next call goes on.
        """
        ended: list[str] = await self._scripts["overdue"](
            keys=[keys.JOBS, keys.DELAYED], args=[keys.job_key(""), _BATCH]
        )
        JOBS_ENDED.labels(JobStatus.FAILED).inc(len(ended))
        return ended

    async def cancel(self, job_id: str) -> JobStatus | None:
        """The job's status before; ``None`` for an unknown one."""
        status: Any = await self._scripts["cancel"](
            keys=[keys.job_key(job_id), keys.DELAYED, keys.events_key(job_id), keys.JOBS],
            args=[job_id],
        )
        if status == JobStatus.QUEUED:
            JOBS_ENDED.labels(JobStatus.CANCELLED).inc()
        return JobStatus(status) if status else None
