"""How many requests can wait for Redis at once, and what a command does that is sent twice."""

from __future__ import annotations

import asyncio
from typing import Any

from dualprocess.schemas import JobStatus, StatusEvent
from services.orchestrator.following.reader import Following
from services.orchestrator.store.batches import Batches, NewJob
from services.orchestrator.store.queue import Queue
from services.orchestrator.store.redis import Client, events_key
from services.orchestrator.store.workers import LiveWorker, Workers
from tests.orchestrator.conftest import SPEC, Api


async def test_many_listeners_leave_room_for_others(api: Api, redis: Client) -> None:
    job, following = await api.submit(), Following(redis)

    async def hear() -> int:
        return sum([len(told) async for told in following.follow(job.id, seconds=3)])

    listening = [asyncio.create_task(hear()) for _ in range(150)]
    await asyncio.sleep(1)
    assert await redis.ping()
    assert await asyncio.gather(*listening) == [1] * 150
    await following.close()


async def test_a_write_whose_answer_was_lost_is_told_once(api: Api, redis: Client) -> None:
    """redis-py sends a command again when its connection breaks before the answer."""
    job = await api.submit()
    queue = Queue(redis)
    claim = await queue.claim("worker", await queue.served_by("tiny-flux", ["tiny-idefics2"]))
    assert claim is not None
    script = queue._scripts["record"]

    async def sent_twice(**command: Any) -> Any:
        await script(**command)
        return await script(**command)

    queue._scripts["record"] = sent_twice
    event = StatusEvent(status=JobStatus.RUNNING, attempt=1, waiting_for="a test")
    for _ in range(2):
        await queue.record(claim, event=event, cause="trouble")
    told = [fields["event"] for _, fields in await redis.xrange(events_key(job.id))]
    assert len([text for text in told if "a test" in text]) == 2
    assert (await api.job(job.id)).causes == ["attempt 1: trouble"] * 2


async def test_a_batch_that_is_sent_twice_stays_as_it_is(api: Api, redis: Client) -> None:
    batch = (await api.http.post("/v1/batches", json={"specs": [SPEC]})).json()
    job = await api.job(batch["jobs"][0]["id"])
    queue = Queue(redis)
    queues = await queue.served_by(job.generator, job.vlms)
    assert await queue.claim("worker", queues) is not None
    same = [NewJob(job.id, job.generator, job.vlms, {})]
    known, _ = await Batches(redis).submit(
        batch["id"], same, name=None, priority=0, owner=job.owner, idempotency=None
    )
    assert known == batch["id"]
    assert (await api.job(job.id)).status == JobStatus.RUNNING
    assert await queue.claim("other", queues) is None


async def test_readers_of_waiting_jobs_share_a_look_at_the_workers(api: Api, redis: Client) -> None:
    """Else, with hundreds of workers, this would be the most expensive part of each read."""
    await Workers(redis).beat(LiveWorker("a", "tiny-flux", ("tiny-idefics2",)), seconds=30)
    job = await api.submit()
    await redis.config_resetstat()
    reads = await asyncio.gather(*(api.job(job.id) for _ in range(30)))
    looks = (await redis.info("commandstats")).get("cmdstat_zrangebyscore", {"calls": 0})["calls"]
    assert {read.waiting_for for read in reads} == {None}
    # Once a second, and the house is kept meanwhile.
    assert looks < 10
