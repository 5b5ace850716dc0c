"""What else a job changed: the generator measures it, and all views of the job show it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dualprocess.schemas import (
    GuardSettings,
    JobSpec,
    JobStatus,
    ResolvedJobSpec,
    Scores,
    StepEvent,
)
from dualprocess.v1 import generator_pb2 as pb
from services.common.presets import load_presets
from services.orchestrator.api.resolve import resolve_job
from services.orchestrator.store.queue import Claim, Queue
from services.orchestrator.worker import wire
from services.orchestrator.worker.advice import advice
from tests.orchestrator.conftest import SPEC, Api, Site
from tests.orchestrator.scripted import ScriptedGenerator


def resolved(**changes: Any) -> ResolvedJobSpec:
    return resolve_job(JobSpec.model_validate(SPEC | changes), load_presets())


async def test_drift_and_diversity_are_scores_and_stand_in_steps(
    api: Api, site: Site, generator: ScriptedGenerator
) -> None:
    site.start_worker()
    job = await api.ended((await api.submit()).id)
    assert (job.scores.drift, job.scores.diversity, job.warnings) == (0.25, 0.75, [])
    (listed,) = (await api.http.get("/v1/jobs")).json()["jobs"]
    assert (listed["scores"]["drift"], listed["scores"]["diversity"]) == (0.25, 0.75)
    metrics = await api.http.get(f"/v1/jobs/{job.id}/artifacts/metrics.jsonl")
    lines = [json.loads(line) for line in metrics.text.splitlines()]
    assert [(line["drift"], line["diversity"]) for line in lines] == [(0.125, None)] * 3
    events = (await api.http.get(f"/v1/jobs/{job.id}/events")).text
    told = [line.removeprefix("data: ") for line in events.splitlines() if '"type":"step"' in line]
    steps = [StepEvent.model_validate_json(line) for line in told]
    assert [(step.drift, step.diversity) for step in steps] == [(0.125, None)] * 3


async def test_without_an_anchor_steps_tell_nothing(
    api: Api, site: Site, generator: ScriptedGenerator
) -> None:
    site.start_worker()
    job = await api.ended((await api.submit(guard="off")).id)
    assert isinstance(job.spec, ResolvedJobSpec)
    assert job.spec.guard == GuardSettings()
    assert generator.guards == [pb.GuardSpec()]
    metrics = await api.http.get(f"/v1/jobs/{job.id}/artifacts/metrics.jsonl")
    assert {json.loads(line)["drift"] for line in metrics.text.splitlines()} == {None}
    # It is measured even so.
    assert job.scores.drift == 0.25


async def test_what_the_generator_did_not_measure_is_none(
    api: Api, site: Site, generator: ScriptedGenerator
) -> None:
    generator.collateral = pb.Collateral(drift=0.5)
    site.start_worker()
    job = await api.ended((await api.submit()).id)
    assert (job.scores.drift, job.scores.diversity, job.warnings) == (0.5, None, [])


@pytest.mark.parametrize(
    ("guard", "sent"),
    [
        ({}, (1.8, 0.95, 0.05)),
        ({"anchor": 0.5, "margin": None}, (0.5, 0, 0.05)),
        ({"margin": 0.9, "worst_case": 0}, (1.8, 0.9, 0)),
        # On the wire it is a float32: as good as off.
        ({"margin": 0.9999999999}, (1.8, 0, 0.05)),
    ],
)
def test_the_guard_goes_to_the_generator(
    guard: dict[str, Any], sent: tuple[float, float, float]
) -> None:
    got = wire.optimize_spec(resolved(guard=guard), {"tiny-idefics2": "vlm:1"}).guard
    assert (got.anchor, got.margin, got.worst_case) == pytest.approx(sent)


@pytest.mark.parametrize(
    ("stop_at_score", "margin"), [(None, 0.95), (0.5, 0.95), (0.95, 0.975), (0.97, 0.985), (1, 1)]
)
async def test_a_margin_that_nobody_wrote_makes_room_for_the_score(
    api: Api, stop_at_score: float | None, margin: float
) -> None:
    job = await api.submit(stop_at_score=stop_at_score)
    assert isinstance(job.spec, ResolvedJobSpec)
    assert job.spec.guard.margin == pytest.approx(margin)
    # With it the job is submitted again as it was resolved.
    again = await api.http.post("/v1/jobs", json=json.loads(job.spec.model_dump_json()))
    assert again.status_code == 202, again.text
    assert again.json()["spec"]["guard"]["margin"] == pytest.approx(margin)


async def test_a_margin_that_is_off_stands_beside_any_score(api: Api) -> None:
    for guard in ("off", {"margin": 1}, {"margin": None}):
        job = await api.submit(stop_at_score=1, guard=guard)
        assert isinstance(job.spec, ResolvedJobSpec)
        assert job.spec.guard.margin == 1


async def test_a_margin_of_null_is_another_body_under_the_same_key(api: Api) -> None:
    key = {"Idempotency-Key": "once"}
    first = await api.http.post("/v1/jobs", json=SPEC, headers=key)
    assert first.status_code == 202
    other = SPEC | {"guard": {"margin": None}}
    assert (await api.http.post("/v1/jobs", json=other, headers=key)).status_code == 422


RAISED = "Raise guard.anchor (now 1.8) to 3.6"
RAISE = f"{RAISED}, or make optimizer.lr smaller (now 0.0005)."


@pytest.mark.parametrize(
    ("diversity", "changes", "remedy"),
    [
        (0.71, {}, None),
        (0.7, {}, None),
        # As it is shown; and as a float32 0.7 is a little less.
        (0.696, {}, None),
        (0.694, {}, RAISE),
        (0.2, {"guard": {"margin": None}}, f"{RAISED}, and set guard.margin (0.95)."),
        (0.2, {"guard": "off"}, "Set guard.anchor (begin with 1.8) and guard.margin (0.95)."),
        (0.2, {"guard": {"anchor": 0}}, "Set guard.anchor (begin with 1.8)."),
        # A remedy must work.
        (0.2, {"guard": {"anchor": 900}}, "to. Make optimizer.lr smaller (now 0.0005)."),
        (0.2, {"guard": "off", "stop_at_score": 0.97}, "and guard.margin (0.985)."),
        (0.2, {"guard": "off", "stop_at_score": 1}, "Set guard.anchor (begin with 1.8)."),
    ],
)
def test_images_that_became_alike_are_told_with_a_remedy(
    diversity: float, changes: dict[str, Any], remedy: str | None
) -> None:
    said = list(advice(resolved(**changes), Scores(drift=0.5, diversity=diversity)))
    if remedy is None:
        assert said == []
    else:
        (warning,) = said
        assert f"their diversity is {diversity:.2f} of the base model's" in warning
        assert warning.endswith(remedy)


@pytest.mark.parametrize(("second", "said"), [(0.5, ["is 0.50 of"]), (0.9, [])])
async def test_an_attempt_that_measures_anew_takes_back_what_was_said(
    api: Api,
    site: Site,
    generator: ScriptedGenerator,
    monkeypatch: pytest.MonkeyPatch,
    second: float,
    said: list[str],
) -> None:
    """Its worker fails between the scores and the end. What it reported until then stays."""
    generator.collateral = pb.Collateral(drift=0.5, diversity=0.5)
    finish = Queue.finish
    between: list[str] = []

    async def fails_once(self: Queue, claim: Claim, *how: Any) -> Any:
        if not between:
            between.extend((await api.job(claim.job_id)).warnings)
            generator.collateral = pb.Collateral(drift=0.5, diversity=second)
            raise RuntimeError("no end")
        return await finish(self, claim, *how)

    monkeypatch.setattr(Queue, "finish", fails_once)
    site.start_worker()
    job = await api.ended((await api.submit()).id)
    assert (job.status, job.attempt) == (JobStatus.SUCCEEDED, 2)
    assert len(between) == 1
    assert len(job.warnings) == len(said)
    assert all(part in warning for part, warning in zip(said, job.warnings, strict=True))
    assert job.scores.diversity == pytest.approx(second)


async def test_scores_of_questions_are_weighted(
    api: Api, site: Site, generator: ScriptedGenerator
) -> None:
    questions = [{"question": "Is it red?", "answer": "Yes", "weight": 3}]
    questions.append({"question": "Is it blue?", "answer": "No", "weight": 1})
    site.start_worker()
    job = await api.ended((await api.submit(questions=questions)).id)
    # For a red picture the scripted VLM answers Yes to everything.
    assert job.scores.lora is not None
    assert [one.correct for one in job.scores.lora.questions] == [1.0, 0.0]
    assert job.scores.lora.correct == pytest.approx(3 / 4)
