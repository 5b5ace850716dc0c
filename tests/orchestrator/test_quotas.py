"""No quota of a key is ever exceeded, and the refusal says which quota it was."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest

from dualprocess.schemas import Batch, DryRun, Job, JobStatus
from services.orchestrator.api.app import create_app
from services.orchestrator.api.settings import ApiSettings
from services.orchestrator.store.queue import Queue
from services.orchestrator.store.redis import Client, api_key_key
from tests.orchestrator.conftest import SPEC, Api, Guarded, Site
from tests.orchestrator.scripted import ScriptedGenerator, png
from tests.redis_server import RedisServer


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


async def test_what_is_known_of_a_base_model_is_the_owners_own(
    guarded: Guarded, site: Site
) -> None:
    site.start_worker()
    owner, other = await guarded.owner(), await guarded.owner()
    asked = {key: SPEC[key] for key in ("prompt", "questions", "generator", "vlm")}
    seen = await owner.http.post("/v1/images", json=asked)
    assert seen.json()["base"]["images"] == 1
    assert (await owner.submit()).base is not None
    assert (await other.submit()).base is None


async def test_a_repeated_submission_is_no_second_job_of_the_quota(guarded: Guarded) -> None:
    owner = await guarded.owner(queued=1)
    headers = {"Idempotency-Key": "once"}
    answers = [await owner.http.post("/v1/jobs", json=SPEC, headers=headers) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert answers[0].json()["id"] == answers[1].json()["id"]
    # The idempotency key of a refused request is free, so it can be sent again later.
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


#: Each step has more than 33,000 units of work.
GREEDY = SPEC | {
    "optimizer": {"steps": 10, "batch": 64, "accumulate": 64},
    "image": {"num_inference_steps": 200},
    "eval": {"images": 64, "every": 1},
}
#: A few units of work.
LONG = SPEC | {"optimizer": {"steps": 300}}
IMAGES = {"prompt": "a circle", "generator": "tiny-flux", "wait": 0}
ASK = {
    "image": base64.b64encode(png("red")).decode(),
    "questions": ["What is it?"],
    "vlm": "tiny-idefics2",
    "wait": 0,
}
WRITER = "qwen2.5-vl"


async def dry(api: Api, path: str, body: dict[str, Any]) -> DryRun:
    answer = await api.http.post(path, params={"dry_run": "true"}, json=body)
    assert answer.status_code == 200, answer.text
    return DryRun.model_validate_json(answer.content)


async def test_few_steps_of_much_work_are_refused(guarded: Guarded) -> None:
    owner = await guarded.owner(steps=10, work=1000)
    answer = await owner.http.post("/v1/jobs", json=GREEDY)
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error["field"] == "optimizer.steps"
    assert "the quota of this key allows at most 1,000" in error["message"]
    for smaller in ("optimizer.accumulate", "optimizer.batch", "image.num_inference_steps"):
        assert smaller in error["message"]
    assert await listed(owner, "queued") == []
    told = (await dry(await guarded.owner(), "/v1/jobs", GREEDY)).work
    assert f"has {told:,} of work" in error["message"]
    assert told > 30 * 1000


async def test_a_job_says_its_work_and_the_quota_what_is_left(guarded: Guarded) -> None:
    ample = await guarded.owner()
    job = await ample.submit(**LONG)
    assert job.work is not None
    assert job.work == (await dry(ample, "/v1/jobs", LONG)).work > 0
    limit = int(2.5 * job.work)
    owner = await guarded.owner(work=limit)
    for _ in range(2):
        await owner.submit(**LONG)
    refused = await owner.http.post("/v1/jobs", json=LONG)
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) > 0
    assert refused.json()["title"] == "The quota of work is used up"
    left = limit - 2 * job.work
    assert f"has {job.work:,} of work" in refused.json()["detail"]
    assert f"quota is {limit:,}, of which {left:,.3f} is left now" in refused.json()["detail"]
    assert "lower optimizer.steps" in refused.json()["detail"]
    told = await dry(owner, "/v1/jobs", LONG)
    assert (told.jobs, told.quota) == (1, limit)
    assert told.left == pytest.approx(left)
    assert sum(told.parts.values()) == pytest.approx(told.work, abs=1e-3)
    # Less of it fits in.
    await owner.submit(optimizer={"steps": 3})


async def test_fifty_submissions_at_once_never_exceed_the_quota_of_work(guarded: Guarded) -> None:
    ample = await guarded.owner()
    work = (await dry(ample, "/v1/jobs", SPEC)).work
    owner = await guarded.owner(work=int(7 * work) + 1)
    answers = await asyncio.gather(*[owner.http.post("/v1/jobs", json=SPEC) for _ in range(50)])
    assert sorted(answer.status_code for answer in answers) == [202] * 7 + [429] * 43
    assert len(await listed(owner, "queued")) == 7


async def test_work_counts_until_the_job_ends_however_it_ends(
    guarded: Guarded, site: Site, generator: ScriptedGenerator
) -> None:
    work = (await dry(await guarded.owner(), "/v1/jobs", SPEC)).work
    owner = await guarded.owner(work=int(work) + 1)
    first = await owner.submit()
    assert (await owner.http.post("/v1/jobs", json=SPEC)).status_code == 429
    await owner.http.post(f"/v1/jobs/{first.id}/cancel")
    generator.go.clear()
    generator.breaks = 1
    second = await owner.submit()
    site.start_worker()
    # Another attempt is the same job, which counts once; a running one counts.
    await owner.until(second.id, lambda job: job.attempt == 2 and job.step)
    assert (await owner.http.post("/v1/jobs", json=SPEC)).status_code == 429
    generator.go.set()
    assert (await owner.ended(second.id)).status == JobStatus.SUCCEEDED
    generator.refusal = "no"
    third = await owner.submit()
    assert (await owner.ended(third.id)).status == JobStatus.FAILED
    await owner.submit()


async def test_the_work_of_a_batch_counts_in_sum(guarded: Guarded) -> None:
    ample = await guarded.owner()
    one = (await dry(ample, "/v1/jobs", LONG)).work
    batch = {"spec": LONG, "repeats": 4}
    told = await dry(ample, "/v1/batches", batch)
    assert told.jobs == 4
    assert told.work == pytest.approx(4 * one, abs=0.01)
    made = Batch.model_validate_json((await ample.http.post("/v1/batches", json=batch)).content)
    assert made.work == pytest.approx(told.work, abs=0.01)

    owner = await guarded.owner(work=int(5.5 * one))
    refused = await owner.http.post("/v1/batches", json={"spec": LONG, "repeats": 6})
    assert refused.status_code == 422
    (error,) = refused.json()["errors"]
    assert error["field"] == "prompts"
    assert "together" in error["message"]
    greedy = {"specs": [SPEC, GREEDY]}
    (error,) = (await owner.http.post("/v1/batches", json=greedy)).json()["errors"]
    assert error["field"] == "specs.1.optimizer.steps"
    assert (await owner.http.post("/v1/batches", json=batch)).status_code == 202
    assert (await owner.http.post("/v1/batches", json=batch)).status_code == 429
    await owner.submit()
    assert len(await listed(owner, "queued")) == 5


@pytest.mark.parametrize(
    ("path", "body", "less"),
    [
        ("/v1/images", IMAGES | {"seeds": list(range(64))}, "fewer seeds"),
        ("/v1/answers", ASK | {"max_new_tokens": 512}, "lower max_new_tokens"),
        ("/v1/questions", {"prompt": "a fox", "vlm": WRITER, "wait": 0}, "is fixed"),
        ("/v1/prompts/expand", {"prompt": "a fox", "vlm": WRITER, "wait": 0}, "is fixed"),
    ],
)
async def test_images_and_words_count_as_well(
    guarded: Guarded, path: str, body: dict[str, Any], less: str
) -> None:
    ample = await guarded.owner()
    told = await dry(ample, path, body)
    answer = (await ample.http.post(path, json=body)).json()
    job = Job.model_validate(answer.get("job", answer))
    assert job.work == told.work > 0
    assert len(await listed(ample, "queued")) == 1

    poor = await guarded.owner(work=1)
    large = body | {"image": {"num_inference_steps": 200}} if path == "/v1/images" else body
    refused = await poor.http.post(path, json=large)
    assert refused.status_code == 422
    assert less in refused.json()["errors"][0]["message"]
    owner = await guarded.owner(work=int(told.work) + 1)
    assert (await owner.http.post(path, json=body)).status_code == 202
    if told.work > 1:
        assert (await owner.http.post(path, json=body)).status_code == 429


async def test_a_key_from_before_work_was_counted_has_no_limit_of_it(
    guarded: Guarded, redis: Client
) -> None:
    owner = await guarded.owner(work=1)
    key_id = (await guarded.keys.list())[-1].id
    await redis.hdel(api_key_key(key_id), "work")
    job = await owner.submit()
    assert (await dry(owner, "/v1/jobs", SPEC)).quota is None
    # A job of that time has no work either, and it ends like others.
    await redis.hdel(f"dualprocess:job:{job.id}", "work")
    await owner.http.post(f"/v1/jobs/{job.id}/cancel")
    ended = await owner.job(job.id)
    assert (ended.status, ended.work) == (JobStatus.CANCELLED, None)


async def test_the_service_takes_no_job_of_more_work_than_its_setting(
    redis: Client, redis_server: RedisServer, artifacts: str, guarded: Guarded
) -> None:
    settings = ApiSettings(
        redis_url=redis_server.url, artifacts=artifacts, auth=True, max_job_work=1000
    )
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        limited = Guarded(app, guarded.keys)
        owner = await limited.owner()
        answer = await owner.http.post("/v1/jobs", json=GREEDY)
        (error,) = answer.json()["errors"]
        assert (answer.status_code, error["field"]) == (422, "optimizer.steps")
        assert "this service allows at most 1,000" in error["message"]
        await owner.submit()
