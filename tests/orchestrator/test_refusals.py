"""Workers survive a Redis that accepts no writes, and a store that deletes nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

from dualprocess.schemas import JobStatus
from services.orchestrator.store.checkpoints import StoredCheckpoint, dump
from services.orchestrator.store.queue import Queue
from services.orchestrator.store.redis import Client, queue_key
from tests.orchestrator.conftest import Api, Site
from tests.orchestrator.scripted import ScriptedGenerator
from tests.orchestrator.test_full_store import Store

QUEUE = queue_key("tiny-flux", ["tiny-idefics2"])


async def test_an_idle_worker_outlives_a_full_redis(api: Api, site: Site, redis: Client) -> None:
    worker = site.start_worker()
    await redis.config_set("maxmemory", 1)
    await asyncio.sleep(0.3)
    assert not site.workers[worker].done()
    await redis.config_set("maxmemory", 0)
    assert (await api.ended((await api.submit()).id)).status == JobStatus.SUCCEEDED


async def test_a_running_job_keeps_its_attempt_while_redis_is_full(
    api: Api, site: Site, redis: Client, generator: ScriptedGenerator
) -> None:
    generator.go.clear()
    site.start_worker(lease_seconds=1)
    job = await api.until((await api.submit()).id, lambda job: job.step == 1)
    await redis.config_set("maxmemory", 1)
    await asyncio.sleep(0.5)
    await redis.config_set("maxmemory", 0)
    generator.go.set()
    job = await api.ended(job.id)
    assert (job.status, job.attempt) == (JobStatus.SUCCEEDED, 1)


async def test_a_worker_outlives_a_store_that_deletes_nothing(
    api: Api, site: Site, redis: Client, tmp_path: Path
) -> None:
    job = await api.submit()
    queue = Queue(redis, lease_ms=50)
    claim = await queue.claim("dead", [QUEUE])
    assert claim is not None
    path = f"jobs/{job.id}/1/checkpoints/000001.safetensors"
    (tmp_path / "artifacts" / path).parent.mkdir(parents=True)
    (tmp_path / "artifacts" / path).write_bytes(b"after step 1")
    stored = dump([StoredCheckpoint(step=1, path=path, sha256="")])
    await queue.record(claim, fields={"checkpoints": stored})
    # An attempt that left a checkpoint does not count: the next one leaves none.
    await queue.requeue(claim, "it broke", attempts=1, pause_ms=0)
    await queue.promote()
    assert await queue.claim("dead", [QUEUE]) is not None
    store = Store(tmp_path / "artifacts")
    store.close()
    worker = site.start_worker(attempts=1)
    assert (await api.ended(job.id)).status == JobStatus.FAILED
    await asyncio.sleep(0.2)
    assert not site.workers[worker].done()
    store.open()
    assert (await api.ended((await api.submit()).id)).status == JobStatus.SUCCEEDED
