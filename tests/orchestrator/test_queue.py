"""Leases and fencing: a zombie's writes are refused."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from redis.exceptions import ConnectionError

from dualprocess.schemas import JobStatus, StatusEvent
from services.orchestrator.store.artifacts import ArtifactStore
from services.orchestrator.store.checkpoints import StoredCheckpoint, dump
from services.orchestrator.store.jobs import Jobs
from services.orchestrator.store.queue import Blame, Claim, LeaseLost, Owned, Queue
from services.orchestrator.store.redis import FENCE, LEASES, Client, job_key, queue_key
from services.orchestrator.store.workers import LiveWorker, Workers
from services.orchestrator.worker.lease import Lease
from tests.orchestrator.conftest import LONGEST_WAIT, Api, Site, on_each_redis
from tests.orchestrator.scripted import ScriptedGenerator
from tests.redis_server import RedisServer

pytestmark = on_each_redis

QUEUE = queue_key("tiny-flux", ["tiny-idefics2"])


async def _frozen(queue: Queue) -> Claim:
    """A claim whose lease has expired while its owner was stopped."""
    claim = await queue.claim("frozen", [QUEUE])
    assert claim is not None
    await asyncio.sleep(0.1)
    return claim


async def test_a_frozen_workers_job_is_taken_over_and_its_writes_are_refused(
    api: Api, site: Site, redis: Client, artifacts: str
) -> None:
    job = await api.submit()
    queue = Queue(redis, lease_ms=50)
    claim = await _frozen(queue)
    site.start_worker()
    ended = await api.ended(job.id)
    assert (ended.status, ended.attempt) == (JobStatus.SUCCEEDED, 2)
    assert "worker frozen stopped renewing its lease" in ended.causes[0]

    zombie = Lease(claim, queue, ArtifactStore(artifacts), attempt=1)
    with pytest.raises(LeaseLost):
        await zombie.record(StatusEvent(status=JobStatus.RUNNING))
    with pytest.raises(LeaseLost):
        await zombie.store("pytorch_lora_weights.safetensors", b"a zombie's")
    with pytest.raises(LeaseLost):
        await queue.finish(claim, JobStatus.FAILED, "by a zombie")
    assert await queue.renew(claim) is Owned.LOST
    assert await queue.requeue(claim, "by a zombie", attempts=3, pause_ms=0) is None
    assert await api.job(job.id) == ended
    url = f"/v1/jobs/{job.id}/artifacts/pytorch_lora_weights.safetensors"
    assert b"zombie" not in (await api.http.get(url)).content


async def test_a_lease_that_is_renewed_in_time_is_nobody_elses(api: Api, redis: Client) -> None:
    await api.submit()
    queue = Queue(redis, lease_ms=60_000)
    claim = await queue.claim("awake", [QUEUE])
    assert claim is not None
    assert await queue.expired() == []
    refused = await queue.requeue(claim, "greed", attempts=3, pause_ms=0, expired=True)
    assert refused is None
    assert await queue.renew(claim) is Owned.KEPT


async def test_each_claim_has_a_token_of_its_own(api: Api, redis: Client) -> None:
    await api.submit()
    queue = Queue(redis, lease_ms=60_000)
    first = await queue.claim("one", [QUEUE])
    assert first is not None
    await queue.requeue(first, "again", attempts=3, pause_ms=0)
    await queue.promote()
    second = await queue.claim("two", [QUEUE])
    assert second is not None
    assert second.token != first.token
    with pytest.raises(LeaseLost):
        await queue.record(first, fields={"step": "9"})


async def test_tokens_stay_unique_when_redis_forgets_its_count(
    api: Api, redis: Client, record_property: Callable[[str, object], None]
) -> None:
    """A replica that takes over may not have heard of the last claims: two workers hold one job,
    and only the one that Redis knows of may write."""
    job = await api.submit()
    queue = Queue(redis, lease_ms=60_000)
    before = await redis.dump(job_key(job.id))
    forgotten = await queue.claim("one", [QUEUE])
    assert forgotten is not None
    await redis.restore(job_key(job.id), 0, before, replace=True)
    await redis.delete(FENCE, LEASES)
    await redis.zadd(QUEUE, {job.id: 1})
    known = await queue.claim("two", [QUEUE])
    assert known is not None
    assert known.job_id == forgotten.job_id
    record_property("tokens", len({known.token, forgotten.token}))
    with pytest.raises(LeaseLost):
        await queue.record(forgotten, fields={"step": "9"})
    assert await queue.renew(forgotten) is Owned.LOST
    assert await queue.renew(known) is Owned.KEPT


class _Cut:
    """Redis whose answer to one script is lost on the way."""

    def __init__(self, redis: Client) -> None:
        self._redis = redis
        self.cut = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._redis, name)

    def register_script(self, source: str) -> Any:
        run = self._redis.register_script(source)

        async def call(**arguments: Any) -> Any:
            answer = await run(**arguments)
            if self.cut:
                self.cut = False
                raise ConnectionError("the connection broke")
            return answer

        return call


async def test_a_claim_whose_answer_was_lost_is_made_once(api: Api, redis: Client) -> None:
    job, _ = await api.submit(), await api.submit()
    broken = _Cut(redis)
    queue = Queue(broken, lease_ms=60_000)
    broken.cut = True
    with pytest.raises(ConnectionError):
        await queue.claim("worker", [QUEUE])
    again = await queue.claim("worker", [QUEUE])
    assert again is not None
    assert again.job_id == job.id
    assert (await api.job(job.id)).attempt == 1
    assert await queue.renew(again) is Owned.KEPT
    following = await queue.claim("worker", [QUEUE])
    assert following is not None
    assert following.job_id != job.id


async def test_a_job_is_left_to_a_worker_that_runs_fewer(api: Api, redis: Client) -> None:
    first = await api.submit()
    queue = Queue(redis, waits_ms=3_600_000)
    assert await queue.claim("idle", ["another queue", QUEUE]) is not None
    second = await api.submit()
    # Now it runs one, and waits for another.
    assert await queue.claim("busy", [QUEUE], running=2) is None
    assert await queue.claim("stranger", ["another queue"]) is None
    claim = await queue.claim("as busy", [QUEUE], running=1)
    assert claim is not None
    assert claim.job_id == second.id != first.id


async def test_nobody_waits_for_long_for_a_worker_that_does_not_take_the_job(
    api: Api, redis: Client
) -> None:
    assert await Queue(redis, waits_ms=3_600_000).claim("idle", [QUEUE]) is None
    await api.submit()
    queue, begin = Queue(redis, waits_ms=300), time.monotonic()
    while await queue.claim("busy", [QUEUE], running=1) is None:
        assert time.monotonic() - begin < LONGEST_WAIT
        await asyncio.sleep(0.05)
    assert time.monotonic() - begin >= 0.3


async def test_a_worker_that_asks_no_more_waits_no_more(api: Api, redis: Client) -> None:
    assert await Queue(redis, waits_ms=1).claim("dead", [QUEUE]) is None
    await api.submit()
    queue = Queue(redis, waits_ms=3_600_000)
    assert await queue.claim("busy", [QUEUE], running=1) is not None


async def test_a_worker_that_stops_waits_for_nothing(api: Api, redis: Client) -> None:
    queue = Queue(redis, waits_ms=3_600_000)
    assert await queue.claim("idle", [QUEUE]) is None
    await queue.leave("idle")
    await api.submit()
    assert await queue.claim("busy", [QUEUE], running=1) is not None


async def test_jobs_spread_over_idle_workers(
    api: Api,
    site: Site,
    redis: Client,
    generator: ScriptedGenerator,
    record_property: Callable[[str, object], None],
) -> None:
    generator.go.clear()
    for _ in range(6):
        site.start_worker(slots=4)
    jobs = [await api.submit() for _ in range(12)]
    for job in jobs:
        await api.until(job.id, lambda job: job.status == JobStatus.RUNNING)
    owners = Counter([await redis.hget(job_key(job.id), "owner") for job in jobs])
    record_property("jobs of each worker", "/".join(str(count) for count in owners.values()))
    assert sorted(owners.values()) == [2] * 6
    generator.go.set()
    for job in jobs:
        assert (await api.ended(job.id)).attempt == 1


async def test_a_submission_sent_twice_stays_one_job(api: Api, redis: Client) -> None:
    """redis-py sends a command again when the connection broke before the answer came."""
    job = await api.submit()
    queue = Queue(redis)
    assert await queue.claim("worker", [QUEUE]) is not None
    await queue.submit(
        job.id,
        generator=job.generator,
        vlms=job.vlms,
        priority=0,
        owner=job.owner,
        fields={},
        idempotency=None,
    )
    again = await Jobs(redis).read(job.id)
    assert again is not None
    assert again.status == JobStatus.RUNNING
    assert await queue.claim("other", [QUEUE]) is None


async def test_a_job_that_must_run_alone_gets_its_turn(api: Api, redis: Client) -> None:
    """On a worker that is never idle, later jobs in the queue don't overtake it."""
    suspect, later = await api.submit(), await api.submit()
    queue = Queue(redis)
    claim = await queue.claim("busy", [QUEUE])
    assert claim == Claim(suspect.id, claim.token if claim else "", alone=False)
    await queue.requeue(claim, "killed", attempts=3, pause_ms=0, blame=Blame.NEIGHBOUR)
    await queue.promote()
    assert await queue.claim("busy", [QUEUE], running=1) is None
    claim = await queue.claim("idle", [QUEUE])
    assert claim == Claim(suspect.id, claim.token if claim else "", alone=True)
    other = await queue.claim("busy", [QUEUE], running=1)
    assert other is not None
    assert other.job_id == later.id


async def test_only_one_end_can_be_a_neighbours_fault(api: Api, redis: Client) -> None:
    job = await api.submit()
    queue = Queue(redis)
    ends = [JobStatus.QUEUED, JobStatus.QUEUED, JobStatus.FAILED]
    for attempt, end in zip((0, 1, 2), ends, strict=True):
        claim = await queue.claim("worker", [QUEUE])
        assert claim is not None
        blame = Blame.NEIGHBOUR
        assert await queue.requeue(claim, "x", attempts=2, pause_ms=0, blame=blame) == end
        assert (await api.job(job.id)).attempt == attempt
        await queue.promote()


async def _cancelled(api: Api, redis: Client, *, checkpoints: str) -> tuple[Queue, Claim]:
    """A job that must be cancelled and whose owner is silent."""
    job = await api.submit()
    queue = Queue(redis, lease_ms=50)
    claim = await queue.claim("silent", [QUEUE])
    assert claim is not None
    await queue.record(claim, fields={"checkpoints": checkpoints})
    await api.http.post(f"/v1/jobs/{job.id}/cancel")
    await asyncio.sleep(0.1)
    return queue, claim


@pytest.mark.parametrize(
    ("checkpoints", "attempts", "status"),
    [("[]", 2, "queued"), ("", 2, "cancelled"), ("[]", 1, "cancelled")],
)
async def test_a_cancelled_job_is_queued_again_only_for_what_its_checkpoints_hold(
    api: Api, redis: Client, checkpoints: str, attempts: int, status: str
) -> None:
    queue, claim = await _cancelled(api, redis, checkpoints=checkpoints)
    ended = await queue.requeue(claim, "silent", attempts=attempts, pause_ms=0, expired=True)
    assert ended == status
    await queue.promote()
    again = await queue.claim("next", [QUEUE])
    assert (again is not None) == (status == "queued")
    if again is not None:
        assert await queue.record(again), "the cancel is still wanted"


async def test_a_second_cancel_ends_a_job_that_waits_to_export(api: Api, redis: Client) -> None:
    queue, claim = await _cancelled(api, redis, checkpoints="[]")
    await queue.requeue(claim, "silent", attempts=2, pause_ms=0, expired=True)
    await api.http.post(f"/v1/jobs/{claim.job_id}/cancel")
    assert (await api.job(claim.job_id)).status == JobStatus.CANCELLED
    await queue.promote()
    assert await queue.claim("next", [QUEUE]) is None


async def test_after_an_absence_of_redis_owners_have_a_whole_lease_to_come_back(
    api: Api, redis: Client, redis_server: RedisServer
) -> None:
    await api.submit()
    queue = Queue(redis, lease_ms=400)
    claim = await queue.claim("alive", [QUEUE])
    assert claim is not None
    assert await queue.expired() == []
    with redis_server.frozen():
        await asyncio.sleep(0.6)
    refused = await queue.requeue(claim, "silent", attempts=3, pause_ms=0, expired=True)
    assert refused is None, "whoever looked before the absence may not act on it after it"
    assert await queue.expired() == []
    assert await queue.renew(claim) is Owned.KEPT


async def test_an_owner_that_does_not_come_back_loses_its_job(api: Api, redis: Client) -> None:
    await api.submit()
    queue = Queue(redis, lease_ms=400)
    claim = await queue.claim("dead", [QUEUE])
    assert await queue.expired() == []
    await asyncio.sleep(0.6)
    looks = 1
    while not (over := await queue.expired()):
        looks += 1
        await asyncio.sleep(0.05)
    assert over == [(claim, "dead")]
    assert 5 < looks < 10, "one more lease, not two"
    status = await queue.requeue(over[0][0], "silent", attempts=3, pause_ms=0, expired=True)
    assert status == JobStatus.QUEUED


async def _live(redis: Client, *devices: str) -> None:
    """One worker for each, that could do the job."""
    for device in devices:
        worker = LiveWorker(f"of {device}", "tiny-flux", ("tiny-idefics2",), device)
        await Workers(redis).beat(worker, seconds=60)


async def _failed_by(queue: Queue, device: str) -> JobStatus | None:
    """The job's status after this device failed it; ``None`` if it is left to others."""
    claim = await queue.claim("worker", [QUEUE], device=device)
    if claim is None:
        return None
    cause = f"CUDA error of {device}"
    status = await queue.requeue(
        claim, cause, attempts=1, pause_ms=0, blame=Blame.DEVICE, device=device
    )
    await queue.promote()
    return status


async def test_a_job_that_a_device_failed_goes_to_another_one(api: Api, redis: Client) -> None:
    job, later = await api.submit(), await api.submit()
    queue = Queue(redis)
    await _live(redis, "a", "b")
    assert await _failed_by(queue, "a") == JobStatus.QUEUED
    failed = await api.job(job.id)
    assert failed.attempt == 0, "no attempt of the job's"
    assert "attempt 1: CUDA error of a (on the device a: this does not count" in failed.causes[0]
    gone = LiveWorker("of b", "tiny-flux", ("tiny-idefics2",), "b")
    await Workers(redis).leave(gone)
    passed_over = await queue.claim("worker", [QUEUE], device="a")
    assert passed_over is not None
    assert passed_over.job_id == later.id
    assert await queue.claim("worker", [QUEUE], device="a") is None
    assert await _failed_by(queue, "b") == JobStatus.FAILED
    error = (await api.job(job.id)).error or ""
    assert "CUDA error of a" in error
    assert "CUDA error of b (on the device b, after a)" in error


@pytest.mark.parametrize(
    "other",
    [
        LiveWorker("same device", "tiny-flux", ("tiny-idefics2",), "a"),
        LiveWorker("other generator", "flux-schnell", ("tiny-idefics2",), "b"),
        LiveWorker("other VLM", "tiny-flux", ("idefics2",), "b"),
        LiveWorker("of before", "tiny-flux", ("tiny-idefics2",)),
    ],
)
async def test_a_device_that_no_other_can_stand_in_for_gets_a_second_chance_and_no_third(
    api: Api, redis: Client, other: LiveWorker
) -> None:
    await api.submit()
    queue = Queue(redis)
    await _live(redis, "a")
    await Workers(redis).beat(other, seconds=60)
    assert await _failed_by(queue, "a") == JobStatus.QUEUED
    assert await _failed_by(queue, "a") == JobStatus.FAILED


async def test_what_a_device_failed_is_forgotten_once_the_job_got_further(
    api: Api, redis: Client
) -> None:
    await api.submit()
    queue = Queue(redis)
    await _live(redis, "a", "b")
    for step, device in enumerate("abab", 1):
        claim = await queue.claim("worker", [QUEUE], device=device)
        assert claim is not None
        stored = dump([StoredCheckpoint(step=step, path="a", sha256="b")])
        await queue.record(claim, fields={"checkpoints": stored})
        status = await queue.requeue(
            claim, "it broke", attempts=1, pause_ms=0, blame=Blame.DEVICE, device=device
        )
        assert status == JobStatus.QUEUED
        await queue.promote()
