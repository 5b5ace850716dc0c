"""What a dry run tells beside the work: spec, queue, time, and how it would be refused."""

from __future__ import annotations

from typing import Any

import pytest

from dualprocess.schemas import DryRun, JobStatus, ResolvedJobSpec
from tests.orchestrator.conftest import SPEC, Api, Guarded, Site
from tests.orchestrator.scripted import ScriptedGenerator

IMAGES = {"prompt": "a circle", "generator": "tiny-flux", "wait": 0}
LARGE = SPEC | {"image": {"width": 128, "height": 128}}

LONG = SPEC | {"optimizer": {"steps": 300}}


async def dry(api: Api, body: dict[str, Any] = SPEC, path: str = "/v1/jobs") -> DryRun:
    answer = await api.http.post(path, params={"dry_run": "true"}, json=body)
    assert answer.status_code == 200, answer.text
    return DryRun.model_validate_json(answer.content)


async def test_it_tells_the_spec_that_the_job_would_have(api: Api) -> None:
    told = await dry(api)
    job = await api.submit()
    assert isinstance(told.spec, ResolvedJobSpec)
    assert told.spec == job.spec
    assert told.spec.lora.rank == 64


async def test_it_tells_what_the_generator_would_not_read(api: Api) -> None:
    long = SPEC | {"prompt": "a circle and another one " * 60}
    told = await dry(api, long)
    assert told.warnings
    assert told.warnings == (await api.submit(**long)).warnings


async def test_it_tells_when_no_worker_is_there(api: Api) -> None:
    (queue,) = (await dry(api)).queues
    assert (queue.generator, queue.vlms) == ("tiny-flux", ["tiny-idefics2"])
    assert (queue.waiting, queue.running, queue.workers) == (0, 0, 0)


async def test_it_tells_how_many_come_before_it_and_run(
    api: Api, site: Site, generator: ScriptedGenerator
) -> None:
    generator.go.clear()
    first = await api.submit()
    site.start_worker(slots=1)
    await api.until(first.id, lambda job: job.status == JobStatus.RUNNING)
    others = [await api.submit(), await api.submit()]
    await api.until_live(1)
    (queue,) = (await dry(api)).queues
    assert (queue.waiting, queue.running, queue.workers) == (2, 1, 1)
    # Pictures come before jobs that learn, and need no VLM.
    (queue,) = (await dry(api, IMAGES, "/v1/images")).queues
    assert (queue.vlms, queue.waiting, queue.running) == ([], 0, 0)
    asked = {"questions": SPEC["questions"], "vlm": "tiny-idefics2"}
    (queue,) = (await dry(api, IMAGES | asked, "/v1/images")).queues
    assert (queue.waiting, queue.running) == (0, 1)
    third = await api.submit()
    assert third.position == 2
    generator.go.set()
    for job in (first, *others, third):
        await api.ended(job.id)


async def test_a_time_is_told_only_once_a_job_of_the_pair_was_measured(
    api: Api, site: Site, generator: ScriptedGenerator
) -> None:
    time = (await dry(api)).time
    assert time is not None
    assert (time.seconds, time.step_seconds) == (None, None)
    assert "No job of tiny-flux with tiny-idefics2 has ended here yet" in time.basis

    generator.step_seconds = 0.5
    site.start_worker()
    await api.ended((await api.submit()).id)
    time = (await dry(api)).time
    assert time is not None
    assert time.step_seconds == pytest.approx(0.5)
    assert time.seconds is not None
    assert time.seconds >= 1.5
    assert "Measured on 1 job of tiny-flux with tiny-idefics2 of the same size" in time.basis

    longer = (await dry(api, SPEC | {"optimizer": {"steps": 43}})).time
    assert longer is not None
    assert longer.seconds == pytest.approx(time.seconds + 40 * 0.5, rel=0.1)
    other = (await dry(api, SPEC | {"generator": "flux-schnell"})).time
    assert other is not None
    assert other.seconds is None


async def test_another_size_is_scaled_by_the_work_of_a_step(
    api: Api, site: Site, generator: ScriptedGenerator
) -> None:
    generator.step_seconds = 0.5
    site.start_worker()
    await api.ended((await api.submit()).id)
    small, large = await dry(api), await dry(api, LARGE)
    steps = [one.parts["training"] + one.parts["teaching"] for one in (small, large)]  # type: ignore[index]
    assert large.time is not None
    assert large.time.step_seconds == pytest.approx(0.5 * steps[1] / steps[0])
    assert "Scaled by the work of a step from 1 job" in large.time.basis
    assert "(64 × 64, " in large.time.basis
    # Once there is one of that size, it counts.
    generator.step_seconds = 0.75
    await api.ended((await api.submit(image=LARGE["image"])).id)
    large = await dry(api, LARGE)
    assert large.time is not None
    assert large.time.step_seconds == pytest.approx(0.75)


async def test_several_jobs_of_one_size_are_averaged(
    api: Api, site: Site, generator: ScriptedGenerator
) -> None:
    site.start_worker()
    for seconds in (0.5, 1.5):
        generator.step_seconds = seconds
        await api.ended((await api.submit()).id)
    time = (await dry(api)).time
    assert time is not None
    assert time.step_seconds == pytest.approx(1.0)
    assert "Measured on 2 jobs" in time.basis


async def test_a_batch_takes_the_time_of_all_its_jobs(
    api: Api, site: Site, generator: ScriptedGenerator
) -> None:
    generator.step_seconds = 0.5
    site.start_worker()
    await api.ended((await api.submit()).id)
    one = (await dry(api)).time
    batch = await dry(api, {"spec": SPEC, "repeats": 3}, "/v1/batches")
    assert one is not None
    assert one.seconds is not None
    assert batch.time is not None
    assert batch.time.seconds == pytest.approx(3 * one.seconds)
    assert (batch.spec, len(batch.queues)) == (None, 1)


async def test_it_tells_how_a_quota_would_refuse_it(guarded: Guarded) -> None:
    owner = await guarded.owner(queued=1)
    assert (await dry(owner)).refused is None
    await owner.submit()
    told = (await dry(owner)).refused
    answer = await owner.http.post("/v1/jobs", json=SPEC)
    assert answer.status_code == 429
    assert told is not None
    assert (told.status, told.title, told.detail) == (
        429,
        answer.json()["title"],
        answer.json()["detail"],
    )

    work = (await dry(owner, LONG)).work
    owner = await guarded.owner(work=int(1.5 * work))
    await owner.submit(**LONG)
    told = (await dry(owner, LONG)).refused
    answer = await owner.http.post("/v1/jobs", json=LONG)
    assert told is not None
    assert (told.title, told.detail) == (answer.json()["title"], answer.json()["detail"])
