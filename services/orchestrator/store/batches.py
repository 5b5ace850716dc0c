"""Batches: jobs that came with one request, and are counted and cancelled as one.

A batch is one more index of its jobs, kept by the scripts that keep the others, beside a record of
its own; nothing here looks through jobs that aren't its.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from dualprocess.schemas import Batch, BatchEntry, JobStatus, StatusEvent
from services.orchestrator.metrics import JOBS_ENDED
from services.orchestrator.store import redis as keys
from services.orchestrator.store.origins import origin_fields
from services.orchestrator.store.queue import IDEMPOTENCY_SECONDS
from services.orchestrator.store.quotas import known_or_exceeded
from services.orchestrator.store.scripts import script
from services.orchestrator.work import THOUSANDTHS

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class NewJob:
    """A job that is about to be queued."""

    job_id: str
    generator: str
    vlms: Sequence[str]
    fields: Mapping[str, str]


class Batches:
    def __init__(self, redis: keys.Client) -> None:
        self._redis = redis
        self._submit = script(redis, "submit_batch")
        self._cancel = script(redis, "cancel")

    async def submit(
        self,
        batch_id: str,
        jobs: Sequence[NewJob],
        *,
        name: str | None,
        priority: int,
        owner: str,
        idempotency: tuple[str, str] | None,
    ) -> tuple[str, str]:
        """Stores and queues all jobs or none, in one round trip.

        ``idempotency`` is a client's key and the hash of its request. Returns the id that belongs
        to the key, which may be an earlier batch's, and the hash of the request that made it.
        Raises as ``Queue.submit`` does, for all jobs together.
        """
        key, digest = idempotency or (batch_id, "")
        queued = StatusEvent(status=JobStatus.QUEUED).model_dump_json()
        args: list[str | int] = [batch_id, priority, digest, IDEMPOTENCY_SECONDS, queued, owner]
        work = sum(int(job.fields.get("work", 0)) for job in jobs)
        args += [name or "", keys.job_key(""), len(jobs), work]
        for job in jobs:
            stored = {**job.fields, **origin_fields()}
            args += [job.job_id, keys.queue_key(job.generator, job.vlms), 2 * len(stored)]
            args += [item for pair in stored.items() for item in pair]
        known = await self._submit(
            keys=[
                keys.batch_key(batch_id),
                keys.JOBS,
                keys.SEQUENCE,
                keys.QUEUES,
                keys.idempotency_key(owner, key),
                keys.api_key_key(owner),
            ],
            args=args,
        )
        known_id, known_digest = known_or_exceeded(known)
        if known_id == batch_id:
            log.info("batch %s: %d jobs queued", batch_id, len(jobs))
        return known_id, known_digest

    async def read(self, batch_id: str) -> Batch | None:
        """The batch as it is now, in two round trips."""
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.hgetall(keys.batch_key(batch_id))
            pipe.zrange(keys.jobs_key(batch=batch_id), 0, -1)
            for status in JobStatus:
                pipe.zcard(keys.jobs_key(batch=batch_id, status=status))
            record, ids, *counts = await pipe.execute()
        if not record:
            return None
        async with self._redis.pipeline(transaction=False) as pipe:
            for job_id in ids:
                pipe.hmget(keys.job_key(job_id), "name", "status")
            described = await pipe.execute()
        return Batch(
            id=batch_id,
            name=record["name"] or None,
            owner=record["key"],
            created_at=datetime.fromtimestamp(int(record["created_at"]) / 1e6, UTC),
            size=int(record["size"]),
            work=int(record["work"]) / THOUSANDTHS if "work" in record else None,
            counts=dict(zip(JobStatus, counts, strict=True)),
            jobs=[
                BatchEntry(id=job_id, name=name or None, status=JobStatus(status))
                for job_id, (name, status) in zip(ids, described, strict=True)
                # A newer version may have other statuses.
                if status in set(JobStatus)
            ],
        )

    async def cancel(self, batch_id: str) -> None:
        """Ends its queued jobs and stops its running ones, in two round trips."""
        async with self._redis.pipeline(transaction=True) as pipe:
            # Jobs move from queued to running, so none is in neither.
            for status in (JobStatus.QUEUED, JobStatus.RUNNING):
                pipe.zrange(keys.jobs_key(batch=batch_id, status=status), 0, -1)
            queued, running = await pipe.execute()
        async with self._redis.pipeline(transaction=False) as pipe:
            # The last first, so that a worker that becomes free takes none that is about to be
            # cancelled.
            for job_id in (queued + running)[::-1]:
                job_keys = [keys.job_key(job_id), keys.DELAYED, keys.events_key(job_id), keys.JOBS]
                await self._cancel(keys=job_keys, args=[job_id], client=pipe)
            before = await pipe.execute()
        JOBS_ENDED.labels(JobStatus.CANCELLED).inc(before.count(JobStatus.QUEUED))
