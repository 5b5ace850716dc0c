"""Jobs that end before their last step: by their deadline, or because they have learned enough."""

from __future__ import annotations

from typing import Any

import pytest

from dualprocess.schemas import JobStatus
from services.orchestrator.store.artifacts import LORA_FILE
from services.orchestrator.store.redis import Client
from tests.orchestrator.conftest import SPEC, Api, Guarded, Site
from tests.orchestrator.scripted import ScriptedGenerator


async def test_a_queued_job_fails_at_its_deadline_though_no_worker_lives(
    api: Api, redis: Client
) -> None:
    job = await api.submit(deadline=0.2)
    assert job.deadline_at is not None
    assert (job.deadline_at - job.created_at).total_seconds() == pytest.approx(0.2)
    job = await api.ended(job.id)
    assert job.status == JobStatus.FAILED
    assert job.error == "its deadline, 0.2 s after its submission, passed while it was queued"
    assert job.finished_at is not None
    assert job.finished_at >= job.created_at
    queues = await redis.keys("dualprocess:queue:*")
    assert (queues, await redis.zcard("dualprocess:jobs:deadlines")) == ([], 0)
    assert "its deadline" in (await api.events(job.id)).text


async def test_a_running_job_stops_at_its_deadline_with_what_it_learned(
    api: Api, site: Site, generator: ScriptedGenerator
) -> None:
    generator.go.clear()
    site.start_worker(lease_seconds=0.5)
    job = await api.ended((await api.submit(deadline=0.5)).id)
    assert (job.status, job.step, job.error) == (JobStatus.CANCELLED, 1, None)
    assert job.stopped_because == "its deadline, 0.5 s after its submission, passed"
    assert LORA_FILE in [artifact.name for artifact in job.artifacts]


async def test_a_job_that_waits_for_its_owners_others_fails_at_its_deadline(
    guarded: Guarded, site: Site, generator: ScriptedGenerator, redis: Client
) -> None:
    owner = await guarded.owner(running=1)
    generator.go.clear()
    site.start_worker()
    first = await owner.submit()
    await owner.until(first.id, lambda job: job.step == 1)
    second = await owner.ended((await owner.submit(deadline=0.5)).id)
    assert second.status == JobStatus.FAILED
    assert "quota" in (second.error or "")
    generator.go.set()
    await owner.ended(first.id)
    assert (await owner.job(second.id)).status == JobStatus.FAILED


async def test_a_deadline_that_is_kept_changes_nothing(api: Api, site: Site, redis: Client) -> None:
    site.start_worker()
    job = await api.ended((await api.submit(deadline=3600)).id)
    assert (job.status, job.stopped_because) == (JobStatus.SUCCEEDED, None)
    assert await redis.zcard("dualprocess:jobs:deadlines") == 0


@pytest.mark.parametrize("seconds", [0, -1, 1e9, "soon"])
async def test_a_deadline_is_ahead_and_near(api: Api, seconds: Any) -> None:
    answer = await api.http.post("/v1/jobs", json=SPEC | {"deadline": seconds})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "deadline")


LONG = {"optimizer": {"steps": 5000}}


async def test_a_job_succeeds_once_its_answers_reach_the_score_three_times(
    api: Api, site: Site, generator: ScriptedGenerator
) -> None:
    generator.probabilities = [0.95, 0.95, 0.4, 0.91, 0.91, 0.95]
    site.start_worker()
    job = await api.ended((await api.submit(stop_at_score=0.9, **LONG)).id)
    assert (job.status, job.error) == (JobStatus.SUCCEEDED, None)
    assert 6 <= job.step < 5000
    assert job.stopped_because == (
        "every right answer had a probability of 0.9 or more in steps 4 to 6 (stop_at_score)"
    )
    assert LORA_FILE in [artifact.name for artifact in job.artifacts]
    assert job.scores.lora is not None


async def test_a_score_that_is_not_reached_stops_nothing(
    api: Api, site: Site, generator: ScriptedGenerator
) -> None:
    generator.probabilities = [0.95, 0.95, 0.89] * 4
    site.start_worker()
    job = await api.ended((await api.submit(stop_at_score=0.9, optimizer={"steps": 12})).id)
    assert (job.status, job.step, job.stopped_because) == (JobStatus.SUCCEEDED, 12, None)


async def test_a_user_who_cancels_is_no_score(
    api: Api, site: Site, generator: ScriptedGenerator
) -> None:
    generator.go.clear()
    site.start_worker(lease_seconds=0.5)
    job = await api.submit(stop_at_score=0.4, **LONG)
    await api.until(job.id, lambda job: job.step)
    await api.http.post(f"/v1/jobs/{job.id}/cancel")
    job = await api.ended(job.id)
    assert (job.status, job.stopped_because) == (JobStatus.CANCELLED, None)


async def test_a_resumed_job_counts_the_steps_before_its_interruption(
    api: Api, site: Site, generator: ScriptedGenerator
) -> None:
    generator.probabilities = [0.95]
    generator.breaks, generator.breaks_after = 1, 1
    site.start_worker()
    optimizer = LONG["optimizer"] | {"checkpoint_every": 1}
    job = await api.ended((await api.submit(stop_at_score=0.9, optimizer=optimizer)).id)
    assert (job.status, job.attempt) == (JobStatus.SUCCEEDED, 2)
    assert "steps 1 to 3" in (job.stopped_because or "")


async def test_a_score_needs_fresh_noise(api: Api) -> None:
    body = SPEC | {"stop_at_score": 0.9, "optimizer": {"steps": 10, "noise_seeds": 5}}
    (error,) = (await api.http.post("/v1/jobs", json=body)).json()["errors"]
    assert error["field"] == "stop_at_score"
    assert "noise_seeds" in error["message"]


async def test_both_may_be_in_a_job_that_is_submitted_again(api: Api, site: Site) -> None:
    site.start_worker()
    job = await api.ended((await api.submit(stop_at_score=1, deadline=100)).id)
    spec = (await api.http.get(f"/v1/jobs/{job.id}/artifacts/job.json")).json()
    assert (spec["stop_at_score"], spec["deadline"]) == (1.0, 100.0)
    again = await api.http.post("/v1/jobs", json=spec)
    assert again.status_code == 202
