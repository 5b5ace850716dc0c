"""Jobs that a newer version of the service stored are shown as far as they are known. Such a job
never breaks requests about others."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dualprocess.schemas import JobPage, JobStatus
from services.orchestrator.store.redis import Client, events_key, job_key
from tests.orchestrator.conftest import SPEC, Api, Guarded, Site
from tests.orchestrator.scripted import ScriptedGenerator


async def _rewrite(redis: Client, job_id: str, field: str, **changes: Any) -> None:
    """Adds unknown fields to a part of the job's record."""
    stored = json.loads(await redis.hget(job_key(job_id), field) or "{}")
    await redis.hset(job_key(job_id), field, json.dumps(stored | changes))


async def _listed(api: Api) -> JobPage:
    answer = await api.http.get("/v1/jobs")
    assert answer.status_code == 200, answer.text
    return JobPage.model_validate_json(answer.content)


async def test_a_job_with_fields_of_a_newer_version_is_shown_without_them(
    api: Api, redis: Client
) -> None:
    job, other = await api.submit(), await api.submit()
    await _rewrite(redis, job.id, "spec", mood="gloomy")
    guard = {"anchor": 1.0, "margin": 0.9, "worst_case": 0.0, "halo": 3}
    await _rewrite(redis, job.id, "spec", guard=guard)
    await _rewrite(redis, job.id, "scores", beauty={"mean": 1})
    await redis.hset(job_key(job.id), "of_tomorrow", "what no version of today reads")

    shown = await api.job(job.id)
    assert shown.spec.guard.anchor == 1.0  # type: ignore[union-attr]
    (told,) = shown.warnings
    assert "newer version" in told
    for field in ("spec.mood", "spec.guard.halo", "scores.beauty"):
        assert field in told
    assert [one.id for one in (await _listed(api)).jobs] == [other.id, job.id]
    assert (await api.http.get(f"/v1/jobs/{job.id}")).status_code == 200


async def test_a_value_that_only_a_newer_version_knows_is_left_out(api: Api, redis: Client) -> None:
    job = await api.submit()
    spec = json.loads(await redis.hget(job_key(job.id), "spec"))
    await _rewrite(redis, job.id, "spec", optimizer=spec["optimizer"] | {"lr": "adaptive"})
    assert "spec.optimizer.lr" in (await api.job(job.id)).warnings[0]


@pytest.mark.parametrize(
    ("field", "value"),
    [("kind", "film"), ("status", "paused"), ("spec", "no JSON"), ("spec", "[]")],
)
async def test_a_job_that_makes_no_sense_is_named_and_breaks_nothing(
    api: Api, redis: Client, field: str, value: str
) -> None:
    batch = (await api.http.post("/v1/batches", json={"specs": [SPEC, SPEC]})).json()
    newer, other = [entry["id"] for entry in batch["jobs"]]
    await redis.hset(job_key(newer), field, value)
    page = await _listed(api)
    assert ([job.id for job in page.jobs], page.unreadable) == ([other], [newer])
    answer = await api.http.get(f"/v1/jobs/{newer}")
    assert answer.status_code == 501
    assert "newer version" in answer.json()["title"]
    assert "Upgrade this service" in answer.json()["detail"]
    for path in (f"/v1/batches/{batch['id']}", f"/v1/batches/{batch['id']}/jobs", "/metrics"):
        assert (await api.http.get(path)).status_code == 200


async def test_a_strangers_job_is_none_even_if_it_makes_no_sense(
    guarded: Guarded, redis: Client
) -> None:
    owner, stranger = await guarded.owner(), await guarded.owner()
    job = await owner.submit()
    await redis.hset(job_key(job.id), "kind", "film")
    assert (await stranger.http.get(f"/v1/jobs/{job.id}")).status_code == 404
    assert (await owner.http.get(f"/v1/jobs/{job.id}")).status_code == 501


async def test_a_worker_runs_no_job_whose_spec_it_does_not_know_whole(
    api: Api, redis: Client, site: Site, generator: ScriptedGenerator
) -> None:
    newer = await api.submit()
    await _rewrite(redis, newer.id, "spec", mood="gloomy")
    site.start_worker()
    waiting = await api.until(newer.id, lambda job: job.causes)
    assert (waiting.status, waiting.attempt) == (JobStatus.QUEUED, 0)
    assert "spec.mood" in waiting.causes[0]
    assert (await api.ended((await api.submit()).id)).status == JobStatus.SUCCEEDED
    assert len(generator.guards) == 1


async def test_events_of_a_newer_version_break_no_stream(api: Api, redis: Client) -> None:
    job = await api.submit()
    key = events_key(job.id)
    told = [
        {"type": "status", "status": "running", "attempt": 1, "mood": "gloomy"},
        {"type": "applause", "claps": 3},
        {"type": "status", "status": "paused", "attempt": 1},
        {"type": "status", "status": "succeeded", "attempt": 1},
    ]
    for event in told:
        await redis.xadd(key, {"event": json.dumps(event)})
    text = (await api.events(job.id)).text
    assert [line for line in text.splitlines() if line.startswith("event: ")] == [
        f"event: {kind}" for kind in ("status", "status", "warning", "warning", "status")
    ]
    assert "an event here (applause) that this one" in text


@pytest.mark.parametrize(("subsample", "timestep"), [(True, "random"), (False, "last")])
async def test_a_job_of_an_earlier_version_says_its_timestep(
    api: Api, redis: Client, subsample: bool, timestep: str
) -> None:
    job = await api.submit()
    spec = json.loads(await redis.hget(job_key(job.id), "spec"))
    optimizer = spec["optimizer"] | {"subsample": subsample}
    del optimizer["timestep"]
    await _rewrite(redis, job.id, "spec", optimizer=optimizer)
    shown = await api.job(job.id)
    assert shown.spec.optimizer.timestep == timestep  # type: ignore[union-attr]
    assert shown.warnings == []


async def test_a_request_in_the_words_of_an_earlier_version_is_told_the_new_ones(api: Api) -> None:
    body = SPEC | {"optimizer": {"steps": 3, "subsample": False}}
    answer = await api.http.post("/v1/jobs", json=body)
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error["field"] == "optimizer"
    assert (
        "write timestep: random for subsample: true, timestep: last for false" in error["message"]
    )
