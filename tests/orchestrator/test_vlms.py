"""Several teachers, and a judge that did not teach."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from dualprocess.schemas import JobStatus
from dualprocess.v1 import vlm_pb2_grpc
from tests.orchestrator.conftest import SPEC, Api, Site, grpc_server
from tests.orchestrator.scripted import ScriptedGenerator, ScriptedVlm


@pytest.fixture
async def other(site: Site) -> AsyncIterator[ScriptedVlm]:
    """A second VLM that the site's workers reach, under the name of another preset."""
    other = ScriptedVlm()  # type: ignore[abstract]  # teaches nobody
    async with grpc_server(lambda s: vlm_pb2_grpc.add_VlmServicer_to_server(other, s)) as target:
        site.settings.vlms["idefics2"] = target
        yield other


async def test_a_judge_shows_where_only_the_teacher_was_fooled(
    api: Api, site: Site, other: ScriptedVlm
) -> None:
    other.yes_of = "blue"
    site.start_worker()
    job = await api.ended((await api.submit(judge="idefics2")).id)
    assert job.vlms == ["tiny-idefics2", "idefics2"]
    assert job.scores.lora is not None
    assert job.scores.judge is not None
    assert job.scores.judge.vlm == "idefics2"
    assert (job.scores.lora.correct, job.scores.judge.lora.correct) == (1.0, 0.0)
    assert job.scores.judge.base.probability.joint == pytest.approx(0.1)
    assert job.scores.judge.gap == pytest.approx(0.9 - 0.1)


async def test_teachers_are_weighted(
    api: Api, site: Site, other: ScriptedVlm, generator: ScriptedGenerator
) -> None:
    other.yes_of = "blue"
    site.start_worker()
    teachers: list[dict[str, Any]] = [{"name": "tiny-idefics2", "weight": 3}, {"name": "idefics2"}]
    job = await api.ended((await api.submit(vlm=teachers)).id)
    assert generator.teachers == [("tiny-idefics2", 3.0), ("idefics2", 1.0)]
    assert job.scores.lora is not None
    assert job.scores.lora.probability.joint == pytest.approx((3 * 0.9 + 0.1) / 4)
    assert job.scores.lora.questions[0].correct == pytest.approx(3 / 4)
    assert job.scores.judge is None


async def test_a_worker_that_lacks_a_vlm_leaves_the_job(api: Api, site: Site) -> None:
    site.start_worker()
    waiting = await api.submit(judge="idefics2")
    done = await api.ended((await api.submit()).id)
    assert done.status == JobStatus.SUCCEEDED
    await asyncio.sleep(0.2)
    waiting = await api.job(waiting.id)
    assert waiting.status == JobStatus.QUEUED
    assert "tiny-flux with tiny-idefics2 and idefics2; none is alive" in (waiting.waiting_for or "")


@pytest.mark.parametrize(
    ("changes", "field", "remedy"),
    [
        ({"judge": "tiny-idefics2"}, "judge", "choose another VLM"),
        ({"judge": "gpt"}, "judge", "idefics2"),
        ({"vlm": [{"name": "gpt"}]}, "vlm.0.name", "tiny-idefics2"),
        ({"vlm": [{"name": "idefics2"}] * 2}, "vlm.1.name", "one weight"),
        ({"vlm": []}, "vlm", "at least one"),
        ({"vlm": [{"name": "idefics2", "weight": 0}]}, "vlm.0.weight", "greater than 0"),
    ],
)
async def test_vlms_that_can_not_work_are_refused(
    api: Api, changes: dict[str, Any], field: str, remedy: str
) -> None:
    answer = await api.http.post("/v1/jobs", json=SPEC | changes)
    assert answer.status_code == 422
    errors = {error["field"]: error["message"] for error in answer.json()["errors"]}
    assert field in errors, errors
    assert remedy in errors[field]
