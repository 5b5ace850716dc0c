"""What a key may ask for is never exceeded, and the refusal says which quota it was."""

from __future__ import annotations

import asyncio

from dualprocess.schemas import JobStatus
from services.orchestrator.store.queue import Queue
from services.orchestrator.store.redis import Client
from tests.orchestrator.conftest import SPEC, Api, Guarded, Site
from tests.orchestrator.scripted import ScriptedGenerator


async def listed(api: Api, status: str) -> list[str]:
    jobs = (await api.http.get("/v1/jobs", params={"status": status, "limit": 200})).json()["jobs"]
    return [job["id"] for job in jobs]


async def test_fifty_submissions_at_once_never_exceed_the_quota(guarded: Guarded) -> None:
    owner, other = await guarded.owner(queued=7), await guarded.owner(queued=7)
    answers = await asyncio.gather(*[owner.http.post("/v1/jobs", json=SPEC) for _ in range(50)])
    assert sorted(answer.status_code for answer in answers) == [202] * 7 + [429] * 43
    assert len(await listed(owner, "queued")) == 7
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.headers["content-type"] == "application/problem+json"
    assert int(refused.headers["retry-after"]) > 0
    assert refused.json()["title"] == "The quota of queued jobs is used up"
    assert "7 queued jobs" in refused.json()["detail"]
    # A quota is a key's own.
    await other.submit()


async def test_a_place_in_the_queue_is_free_again_after_a_cancel(guarded: Guarded) -> None:
    owner = await guarded.owner(queued=1)
    job = await owner.submit()
    images = {"prompt": "a circle", "generator": "tiny-flux", "wait": 0}
    assert (await owner.http.post("/v1/images", json=images)).status_code == 429
    await owner.http.post(f"/v1/jobs/{job.id}/cancel")
    assert (await owner.http.post("/v1/images", json=images)).status_code == 202


async def test_a_repeated_submission_is_no_second_job_of_the_quota(guarded: Guarded) -> None:
    owner = await guarded.owner(queued=1)
    headers = {"Idempotency-Key": "once"}
    answers = [await owner.http.post("/v1/jobs", json=SPEC, headers=headers) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert answers[0].json()["id"] == answers[1].json()["id"]
    # The refused one's key stands for nothing, so it can be sent again later.
    refused = await owner.http.post("/v1/jobs", json=SPEC, headers={"Idempotency-Key": "late"})
    assert refused.status_code == 429
    await owner.http.post(f"/v1/jobs/{answers[0].json()['id']}/cancel")
    late = await owner.http.post("/v1/jobs", json=SPEC, headers={"Idempotency-Key": "late"})
    assert late.status_code == 202


async def test_jobs_over_the_running_quota_wait_and_let_others_pass(
    guarded: Guarded, site: Site, generator: ScriptedGenerator
) -> None:
    owner, other = await guarded.owner(running=1), await guarded.owner()
    generator.go.clear()
    first, second, third = [await owner.submit() for _ in range(3)]
    passing = await other.submit()
    site.start_worker(slots=4)
    await other.until(passing.id, lambda job: job.step)
    await owner.until(first.id, lambda job: job.step)
    waiting = await owner.until(third.id, lambda job: "quota" in (job.waiting_for or ""))
    assert waiting.status == JobStatus.QUEUED
    assert "the quota is 1 running at once" in (waiting.waiting_for or "")
    assert generator.most_active == 2
    assert await listed(owner, "running") == [first.id]
    assert await listed(owner, "queued") == [third.id, second.id]

    await owner.http.post(f"/v1/jobs/{second.id}/cancel")
    generator.go.set()
    ended = [(await owner.ended(job.id)).status for job in (first, second, third)]
    assert ended == [JobStatus.SUCCEEDED, JobStatus.CANCELLED, JobStatus.SUCCEEDED]
    assert (await owner.job(third.id)).waiting_for is None
    await other.ended(passing.id)


async def test_a_running_job_that_is_cancelled_lets_the_next_one_run(
    guarded: Guarded, site: Site, generator: ScriptedGenerator
) -> None:
    owner = await guarded.owner(running=1)
    generator.go.clear()
    first, second = await owner.submit(), await owner.submit()
    site.start_worker(slots=2)
    await owner.until(first.id, lambda job: job.step)
    await owner.until(second.id, lambda job: "quota" in (job.waiting_for or ""))
    await owner.http.post(f"/v1/jobs/{first.id}/cancel")
    await owner.until(second.id, lambda job: job.step)
    generator.go.set()
    assert (await owner.ended(second.id)).status == JobStatus.SUCCEEDED


async def test_a_job_that_is_cancelled_while_the_quota_holds_it_never_runs(
    guarded: Guarded, redis: Client
) -> None:
    owner, queue = await guarded.owner(running=1), Queue(redis)
    first, second = await owner.submit(), await owner.submit()
    queues = await queue.served_by("tiny-flux", ["tiny-idefics2"])
    claim = await queue.claim("worker", queues)
    assert claim is not None
    assert claim.job_id == first.id
    assert await queue.claim("worker", queues) is None
    await owner.http.post(f"/v1/jobs/{second.id}/cancel")
    await queue.finish(claim, JobStatus.SUCCEEDED)
    assert await queue.claim("worker", queues) is None
    assert (await owner.job(second.id)).status == JobStatus.CANCELLED


async def test_an_attempt_that_broke_counts_as_one_running_job(
    guarded: Guarded, site: Site, generator: ScriptedGenerator
) -> None:
    owner = await guarded.owner(running=1)
    generator.breaks = 1
    jobs = [await owner.submit() for _ in range(3)]
    site.start_worker(slots=3)
    ended = [await owner.ended(job.id) for job in jobs]
    assert {job.status for job in ended} == {JobStatus.SUCCEEDED}
    assert generator.most_active == 1


async def test_too_many_steps_name_the_field(guarded: Guarded) -> None:
    owner = await guarded.owner(steps=20)
    answer = await owner.http.post("/v1/jobs", json=SPEC | {"optimizer": {"steps": 21}})
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error["field"] == "optimizer.steps"
    assert "quota steps of this key is 20" in error["message"]
    await owner.submit(optimizer={"steps": 20})


async def test_a_body_over_the_keys_quota_is_refused(guarded: Guarded) -> None:
    owner = await guarded.owner(body_bytes=1000)
    answer = await owner.http.post("/v1/jobs", json=SPEC | {"prompt": "a circle " * 200})
    assert answer.status_code == 413
    assert "1,000 bytes, the quota body_bytes of this key" in answer.json()["detail"]
    await owner.submit()
