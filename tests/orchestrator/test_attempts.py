"""How long a lease lasts, who may write under it, and how long a job waits between two attempts,
on Redis's own clock."""

from __future__ import annotations

import asyncio
import time

import pytest

from dualprocess.schemas import JobStatus, StatusEvent
from services.orchestrator.store.checkpoints import StoredCheckpoint, dump
from services.orchestrator.store.queue import Claim, LeaseLost, Owned, Queue
from services.orchestrator.store.redis import DEADLINES, DELAYED, Client, queue_key
from tests.orchestrator.conftest import Api, Site
from tests.orchestrator.scripted import ScriptedGenerator

QUEUE = queue_key("tiny-flux", ["tiny-idefics2"])


async def test_a_renewed_lease_lasts_longer_than_the_one_that_was_claimed(
    api: Api, redis: Client
) -> None:
    """Claimed for a moment and renewed for an hour, it is still its owner's after the moment."""
    await api.submit()
    brief, long = Queue(redis, lease_ms=50), Queue(redis, lease_ms=3_600_000)
    claim = await brief.claim("owner", [QUEUE])
    assert claim is not None
    assert await long.renew(claim) is Owned.KEPT
    await asyncio.sleep(0.1)
    assert await brief.expired() == [], "the renewal did not lengthen the lease"
    taken = await brief.requeue(claim, "silent", attempts=3, pause_ms=0, expired=True)
    assert taken is None, "the renewal did not lengthen the lease"


async def test_a_lease_that_is_not_renewed_is_over(api: Api, redis: Client) -> None:
    """Without this the test above would prove nothing."""
    await api.submit()
    queue = Queue(redis, lease_ms=50)
    claim = await queue.claim("owner", [QUEUE])
    await asyncio.sleep(0.1)
    assert await queue.expired() == [(claim, "owner")]


async def test_an_absence_of_redis_shortens_no_lease(api: Api, redis: Client) -> None:
    """After one, whoever looks for leases that are over gives each a whole one of its own."""
    await api.submit()
    brief, long = Queue(redis, lease_ms=50), Queue(redis, lease_ms=3_600_000)
    claim = await long.claim("owner", [QUEUE])
    assert claim is not None
    assert await brief.expired() == []
    await asyncio.sleep(0.1)
    for _ in range(10):
        assert await brief.expired() == [], "a lease of an hour was made one of 50 ms"
        await asyncio.sleep(0.01)


async def _claimed(queue: Queue) -> Claim:
    claim = await queue.claim("owner", [QUEUE])
    assert claim is not None
    return claim


@pytest.mark.parametrize("ended_by", ["its owner", "the end of an attempt", "another claim"])
async def test_who_has_no_lease_any_more_writes_nothing(
    api: Api, redis: Client, ended_by: str
) -> None:
    queue, job = Queue(redis, lease_ms=3_600_000), await api.submit()
    claim = await _claimed(queue)
    match ended_by:
        case "its owner":
            await queue.finish(claim, JobStatus.SUCCEEDED)
        case "the end of an attempt":
            await queue.requeue(claim, "broke", attempts=3, pause_ms=3_600_000)
        case "another claim":
            await queue.requeue(claim, "broke", attempts=3, pause_ms=0)
            await queue.promote()
            assert (await _claimed(queue)).token != claim.token
    before = await api.job(job.id)
    assert await queue.renew(claim) is Owned.LOST
    assert await queue.requeue(claim, "late", attempts=3, pause_ms=0) is None
    with pytest.raises(LeaseLost):
        await queue.record(claim, fields={"step": "9"})
    with pytest.raises(LeaseLost):
        await queue.finish(claim, JobStatus.FAILED, "late")
    assert await api.job(job.id) == before


async def test_an_ended_job_is_under_no_lease(api: Api, redis: Client) -> None:
    """Else it would be taken from its owner once more, and run again."""
    queue, ends = Queue(redis, lease_ms=50), (JobStatus.SUCCEEDED, JobStatus.FAILED)
    for status in ends:
        await api.submit()
        await queue.finish(await _claimed(queue), status)
    await api.submit()
    await queue.requeue(await _claimed(queue), "broke", attempts=2, pause_ms=3_600_000)
    await asyncio.sleep(0.1)
    assert await queue.expired() == []


async def test_an_attempt_begins_and_ends_as_the_job_says(api: Api, redis: Client) -> None:
    queue, job = Queue(redis, lease_ms=3_600_000), await api.submit()
    first = await _claimed(queue)
    await queue.record(first, fields={"step": "2", "skipped": "1"})
    began = await api.job(job.id)
    assert (began.attempt, began.step, began.skipped) == (1, 2, 1)
    await queue.requeue(first, "it broke", attempts=3, pause_ms=0)
    assert "it broke" in ((await api.job(job.id)).waiting_for or "")
    await queue.promote()
    assert "none is alive" in ((await api.job(job.id)).waiting_for or ""), "the pause is over"
    # Promoting once more puts nothing into the queue a second time.
    second = await _claimed(queue)
    await queue.promote()
    assert await queue.claim("other", [QUEUE]) is None
    again = await api.job(job.id)
    assert (again.attempt, again.step, again.skipped) == (2, 0, 0)
    assert again.started_at == began.started_at, "the job's first start counts"
    assert again.causes == ["attempt 1: it broke"]
    assert (again.status, again.waiting_for) == (JobStatus.RUNNING, None)
    await queue.finish(second, JobStatus.FAILED, "no such layer")
    ended = await api.job(job.id)
    assert (ended.status, ended.error) == (JobStatus.FAILED, "no such layer")
    told = (await api.events(job.id)).text
    assert told.count("event: status") == 5
    assert "no such layer" in told


async def test_a_job_waits_its_pause_out(api: Api, redis: Client) -> None:
    queue = Queue(redis, lease_ms=3_600_000)
    await api.submit()
    await queue.requeue(await _claimed(queue), "it broke", attempts=3, pause_ms=3_600_000)
    await queue.promote()
    assert await queue.claim("hasty", [QUEUE]) is None


async def test_the_owner_of_a_job_past_its_deadline_is_asked_to_stop(
    api: Api, redis: Client
) -> None:
    queue, job = Queue(redis, lease_ms=3_600_000), await api.submit(deadline=3600)
    claim = await _claimed(queue)
    await redis.zadd(DEADLINES, {job.id: 0})
    assert await queue.end_overdue() == []
    assert await redis.zcard(DEADLINES) == 0, "who was asked is in nobody's way the next time"
    assert await queue.renew(claim) is Owned.CANCEL_WANTED
    await queue.finish(claim, JobStatus.CANCELLED)
    assert "its deadline" in ((await api.job(job.id)).stopped_because or "")


async def test_the_cause_of_every_attempt_is_in_the_error(api: Api, redis: Client) -> None:
    queue, job = Queue(redis, lease_ms=3_600_000), await api.submit()
    for cause in ("first", "second"):
        await queue.requeue(await _claimed(queue), cause, attempts=2, pause_ms=0)
        await queue.promote()
    failed = await api.job(job.id)
    assert (failed.status, failed.error) == (
        JobStatus.FAILED,
        "attempt 1: first\nattempt 2: second",
    )


async def _broken_after(queue: Queue, redis: Client, *steps: int, attempts: int = 3) -> JobStatus:
    """The job's status when each attempt broke with its newest checkpoint after such a step."""
    status = JobStatus.QUEUED
    for step in steps:
        claim = await _claimed(queue)
        stored = dump([StoredCheckpoint(step=step, path="a", sha256="b")] if step else [])
        await queue.record(claim, fields={"checkpoints": stored})
        ended = await queue.requeue(claim, "killed", attempts=attempts, pause_ms=1_000_000)
        assert ended is not None
        status = ended
        if status == JobStatus.QUEUED:
            await redis.zadd(DELAYED, {claim.job_id: 0})
            await queue.promote()
    return status


async def test_an_attempt_that_got_further_starts_the_count_anew(api: Api, redis: Client) -> None:
    queue, job = Queue(redis), await api.submit()
    assert await _broken_after(queue, redis, *range(12, 120, 12)) == JobStatus.QUEUED
    assert (await api.job(job.id)).attempt == 9
    assert await _broken_after(queue, redis, 108, 108, 110) == JobStatus.QUEUED
    assert await _broken_after(queue, redis, 110, 110, 110) == JobStatus.FAILED
    assert len((await api.job(job.id)).causes) == 15


async def test_a_checkpoint_that_is_no_newer_than_one_before_starts_nothing_anew(
    api: Api, redis: Client
) -> None:
    """A checkpoint that could not be used is removed; reaching the same step again is no
    progress."""
    queue, _ = Queue(redis), await api.submit()
    assert await _broken_after(queue, redis, 40, 20, 40, 30) == JobStatus.FAILED


async def test_the_pauses_begin_anew_with_the_count(api: Api, redis: Client) -> None:
    queue, job = Queue(redis), await api.submit()
    await _broken_after(queue, redis, 0, 0, attempts=9)
    claim = await _claimed(queue)
    stored = dump([StoredCheckpoint(step=1, path="a", sha256="b")])
    await queue.record(claim, fields={"checkpoints": stored})
    await queue.requeue(claim, "killed", attempts=9, pause_ms=1_000_000)
    due = await redis.zscore(DELAYED, job.id)
    assert round(due / 1000 - time.time(), -3) == 1000


async def test_a_field_without_a_value_is_gone(api: Api, redis: Client) -> None:
    queue, job = Queue(redis, lease_ms=3_600_000), await api.submit()
    claim = await _claimed(queue)
    await queue.record(claim, fields={"waiting_for": "its VLM"})
    assert (await api.job(job.id)).waiting_for == "its VLM"
    await queue.record(claim, fields={"waiting_for": ""})
    assert (await api.job(job.id)).waiting_for is None


async def test_a_wanted_cancel_is_told_with_whatever_the_owner_writes(
    api: Api, redis: Client
) -> None:
    queue, job = Queue(redis, lease_ms=3_600_000), await api.submit()
    claim = await _claimed(queue)
    event = StatusEvent(status=JobStatus.RUNNING, attempt=1)
    assert not await queue.record(claim, event=event)
    assert await queue.renew(claim) is Owned.KEPT
    await api.http.post(f"/v1/jobs/{job.id}/cancel")
    assert await queue.record(claim, event=event)
    assert await queue.renew(claim) is Owned.CANCEL_WANTED


@pytest.mark.parametrize("status", [JobStatus.SUCCEEDED, JobStatus.FAILED])
async def test_a_cancel_changes_no_job_that_has_ended(
    api: Api, redis: Client, status: JobStatus
) -> None:
    queue, job = Queue(redis), await api.submit()
    await queue.finish(await _claimed(queue), status)
    ended = await api.job(job.id)
    assert await queue.cancel(job.id) == status
    assert await api.job(job.id) == ended


async def test_the_first_in_line_goes_first_whatever_queue_it_is_in(
    api: Api, redis: Client
) -> None:
    """A worker looks at several queues; images go before jobs that learn, in each."""
    queue = Queue(redis)
    first = (await api.submit()).id
    images = {"prompt": "a circle", "generator": "tiny-flux", "wait": 0}
    second = (await api.http.post("/v1/images", json=images)).json()["id"]
    third = (await api.submit()).id
    queues = await queue.served_by("tiny-flux", ["tiny-idefics2"])
    assert len(queues) == 2
    order = [await queue.claim("worker", queues) for _ in range(4)]
    assert [claim and claim.job_id for claim in order] == [second, first, third, None]


async def test_a_worker_keeps_its_lease_through_a_job_that_outlasts_it(
    api: Api, site: Site, generator: ScriptedGenerator
) -> None:
    generator.go.clear()
    site.start_worker(lease_seconds=0.5)
    job = await api.submit()
    await api.until(job.id, lambda job: job.step)
    await asyncio.sleep(1.2)
    generator.go.set()
    ended = await api.ended(job.id)
    assert (ended.status, ended.attempt, ended.causes) == (JobStatus.SUCCEEDED, 1, [])


async def _pause(redis: Client, api: Api, job_id: str, attempt: int) -> float:
    """Seconds until the attempt after ``attempt``, which failed; then makes it due."""
    waiting = await api.until(
        job_id, lambda job: (job.attempt, job.status) == (attempt, JobStatus.QUEUED)
    )
    assert "the next attempt" in (waiting.waiting_for or "")
    due = await redis.zscore(DELAYED, job_id)
    assert due is not None
    await redis.zadd(DELAYED, {job_id: 0})
    return float(due / 1000 - time.time())


async def test_the_pause_between_attempts_doubles(
    api: Api, site: Site, redis: Client, generator: ScriptedGenerator
) -> None:
    generator.breaks = 3
    site.start_worker(pause_seconds=1000, attempts=4)
    job = await api.submit()
    # Whole thousands of seconds: what the machine needs meanwhile is lost in the rounding.
    pauses = [round(await _pause(redis, api, job.id, attempt), -3) for attempt in (1, 2, 3)]
    assert pauses == [1000, 2000, 4000]
    assert (await api.ended(job.id)).status == JobStatus.SUCCEEDED
