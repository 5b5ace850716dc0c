"""How many jobs wait and run, for metrics."""

from __future__ import annotations

from collections import Counter

from dualprocess.schemas import JobStatus
from services.orchestrator.store import redis as keys

_QUEUE_PREFIX = keys.queue_key("", ()).removesuffix("|")


class Counts:
    def __init__(self, redis: keys.Client) -> None:
        self._redis = redis

    async def queue_depths(self) -> dict[str, int]:
        """How many jobs wait, by ``generator|vlm+vlm``."""
        queues = sorted(await self._redis.smembers(keys.QUEUES))
        async with self._redis.pipeline(transaction=False) as pipe:
            for queue in queues:
                pipe.zcard(queue)
            depths = await pipe.execute()
        return {
            queue.removeprefix(_QUEUE_PREFIX): depth
            for queue, depth in zip(queues, depths, strict=True)
        }

    async def head_waits(self) -> dict[str, float]:
        """For how many seconds the next job of each queue with any has been queued, by
        ``generator|vlm+vlm``."""
        queues = sorted(await self._redis.smembers(keys.QUEUES))
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.time()
            for queue in queues:
                pipe.zrange(queue, 0, 0)
            (seconds, micros), *heads = await pipe.execute()
        heading = [(queue, head[0]) for queue, head in zip(queues, heads, strict=True) if head]
        async with self._redis.pipeline(transaction=False) as pipe:
            for _, job_id in heading:
                pipe.hget(keys.job_key(job_id), "queued_at")
            moments = await pipe.execute()
        now = float(seconds) + float(micros) / 1e6
        return {
            queue.removeprefix(_QUEUE_PREFIX): max(0.0, now - int(moment) / 1000)
            for (queue, _), moment in zip(heading, moments, strict=True)
            if moment is not None
        }

    async def queues_running(self) -> dict[str, int]:
        """How many jobs are under a lease, by the queue that they came from, as ``queue_depths``
        names it; of each that was ever used."""
        queues = await self._redis.smembers(keys.QUEUES)
        async with self._redis.pipeline(transaction=False) as pipe:
            for job_id in await self._redis.zrange(keys.LEASES, 0, -1):
                pipe.hget(keys.job_key(job_id), "queue")
            counts = Counter(await pipe.execute())
        return {queue.removeprefix(_QUEUE_PREFIX): counts[queue] for queue in sorted(queues)}

    async def by_status(self) -> dict[JobStatus, int]:
        """How many jobs there are."""
        async with self._redis.pipeline(transaction=True) as pipe:
            for status in JobStatus:
                pipe.zcard(keys.jobs_key(status=status))
            return dict(zip(JobStatus, await pipe.execute(), strict=True))

    async def running(self) -> int:
        """How many jobs are under a lease."""
        return int(await self._redis.zcard(keys.LEASES))
