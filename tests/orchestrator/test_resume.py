"""An interrupted job goes on from its last checkpoint."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from dualprocess.schemas import Job, JobStatus
from services.orchestrator.store.artifacts import LORA_FILE
from services.orchestrator.store.redis import Client, job_key
from services.orchestrator.worker import wire
from tests.orchestrator.conftest import Api, Site
from tests.orchestrator.scripted import ScriptedGenerator, checkpoint_file

EVERY_TWO = {"optimizer": {"steps": 9, "checkpoint_every": 2}}


@pytest.fixture
def kept(tmp_path: Path) -> Any:
    """The steps of the checkpoints in the store, in order."""
    return lambda: sorted(int(path.stem) for path in files(tmp_path))


def files(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "artifacts").rglob("checkpoints/*.safetensors"))


async def told_steps(api: Api, job: Job) -> list[int]:
    metrics = await api.http.get(f"/v1/jobs/{job.id}/artifacts/metrics.jsonl")
    return [json.loads(line)["step"] for line in metrics.text.splitlines()]


async def test_a_job_goes_on_where_its_generator_died(
    api: Api, site: Site, generator: ScriptedGenerator, kept: Any
) -> None:
    generator.breaks, generator.breaks_after = 1, 6
    site.start_worker()
    job = await api.ended((await api.submit(**EVERY_TWO)).id)
    assert (job.status, job.attempt, job.step) == (JobStatus.SUCCEEDED, 2, 9)
    assert generator.resumes == [checkpoint_file(6)]
    assert await told_steps(api, job) == list(range(1, 10))
    assert not [artifact for artifact in job.artifacts if "checkpoint" in artifact.name]
    assert (job.checkpoint, kept()) == (None, []), "an ended job needs none"


async def test_two_checkpoints_are_kept(
    api: Api, site: Site, generator: ScriptedGenerator, kept: Any
) -> None:
    generator.breaks, generator.breaks_after = 1, 8
    site.start_worker(pause_seconds=60)
    job = await api.until(
        (await api.submit(**EVERY_TWO)).id, lambda job: job.causes and job.status == "queued"
    )
    assert (job.checkpoint, kept()) == (8, [6, 8])


async def test_a_job_given_back_goes_on_elsewhere(
    api: Api, site: Site, generator: ScriptedGenerator
) -> None:
    generator.go.clear()
    worker = site.start_worker()
    job = await api.submit()
    await api.until(job.id, lambda job: job.step == 1)
    await site.stop(worker)
    job = await api.job(job.id)
    assert (job.status, job.attempt, job.checkpoint) == (JobStatus.QUEUED, 0, 1)
    generator.go.set()
    site.start_worker()
    job = await api.ended(job.id)
    assert (job.status, job.attempt) == (JobStatus.SUCCEEDED, 1)
    assert generator.resumes == [checkpoint_file(1)]
    assert await told_steps(api, job) == [1, 2, 3]


async def interrupted(api: Api, site: Site, generator: ScriptedGenerator, tmp_path: Path) -> Job:
    """A job that waits for its next attempt, with checkpoints after steps 4 and 6."""
    generator.breaks, generator.breaks_after = 1, 6
    worker = site.start_worker(pause_seconds=0.5)
    job = await api.until(
        (await api.submit(**EVERY_TWO)).id, lambda job: job.causes and job.status == "queued"
    )
    await site.stop(worker)
    return job


@pytest.mark.parametrize("spoilt", [[6], [6, 4]])
@pytest.mark.parametrize("how", ["damaged", "gone", "refused"])
async def test_a_checkpoint_that_cannot_be_used_gives_way_to_an_older_one(
    api: Api,
    site: Site,
    generator: ScriptedGenerator,
    tmp_path: Path,
    spoilt: list[int],
    how: str,
) -> None:
    job = await interrupted(api, site, generator, tmp_path)
    for path in files(tmp_path):
        if int(path.stem) not in spoilt:
            continue
        if how == "refused":
            generator.refused_checkpoints.append(path.read_bytes())
        elif how == "gone":
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[:-1])
    site.start_worker()
    job = await api.ended(job.id)
    assert (job.status, job.attempt) == (JobStatus.SUCCEEDED, 2)
    assert await told_steps(api, job) == list(range(1, 10))
    taken = [file for file in generator.resumes if file not in generator.refused_checkpoints]
    assert taken == ([checkpoint_file(4)] if spoilt == [6] else [])
    why = "no checkpoint" if how == "refused" else "damaged or gone"
    assert len(job.causes) == 1 + len(spoilt)
    for cause, step in zip(job.causes[1:], spoilt, strict=True):
        assert cause.startswith(f"attempt 2: the checkpoint after step {step} could not be used")
        assert why in cause


async def test_without_checkpoints_it_begins_anew(
    api: Api, site: Site, generator: ScriptedGenerator, kept: Any
) -> None:
    generator.breaks, generator.breaks_after = 1, 6
    site.start_worker()
    job = await api.submit(optimizer={"steps": 9, "checkpoint_every": 0})
    job = await api.ended(job.id)
    assert (job.status, job.attempt, generator.resumes) == (JobStatus.SUCCEEDED, 2, [])
    assert await told_steps(api, job) == list(range(1, 10))


async def test_a_failed_job_leaves_no_checkpoints(
    api: Api, site: Site, generator: ScriptedGenerator, kept: Any
) -> None:
    generator.breaks, generator.breaks_after = 4, 4
    site.start_worker()
    job = await api.ended((await api.submit(**EVERY_TWO)).id)
    assert (job.status, job.attempt) == (JobStatus.FAILED, 4), "the first one got somewhere"
    await api.until(job.id, lambda _: kept() == [])


@pytest.mark.parametrize("why", ["a cancel", "its deadline"])
async def test_a_stopped_job_whose_generator_dies_still_exports_what_it_learned(
    api: Api, site: Site, generator: ScriptedGenerator, redis: Client, why: str
) -> None:
    generator.go.clear()
    site.start_worker()
    deadline = {"deadline": 0.6} if why == "its deadline" else {}
    job = await api.submit(optimizer={"steps": 9, "checkpoint_every": 1}, **deadline)
    await api.until(job.id, lambda job: job.checkpoint == 1)
    if why == "a cancel":
        await api.http.post(f"/v1/jobs/{job.id}/cancel")
    while not await redis.hexists(job_key(job.id), "cancel"):  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    generator.die()
    job = await api.ended(job.id)
    assert (job.status, job.attempt, job.step) == (JobStatus.CANCELLED, 2, 1)
    assert (job.stopped_because is not None) == (why == "its deadline")
    assert generator.resumes == [checkpoint_file(1)]
    assert await told_steps(api, job) == [1]
    assert LORA_FILE in [artifact.name for artifact in job.artifacts]


async def test_a_stopped_job_without_a_usable_checkpoint_just_ends(
    api: Api, site: Site, generator: ScriptedGenerator, redis: Client
) -> None:
    generator.go.clear()
    generator.refused_checkpoints = [checkpoint_file(1)]
    site.start_worker()
    job = await api.submit(optimizer={"steps": 9, "checkpoint_every": 1})
    await api.until(job.id, lambda job: job.checkpoint == 1)
    await api.http.post(f"/v1/jobs/{job.id}/cancel")
    generator.die()
    job = await api.ended(job.id)
    assert (job.status, job.artifacts) == (JobStatus.CANCELLED, [])


@pytest.mark.parametrize(
    ("part", "cause"),
    [
        ("optimize_spec", "the worker: ValueError: out of range"),
        ("chunks", "the worker: a call was cancelled unexpectedly"),
    ],
)
async def test_a_request_that_cannot_be_written_ends_the_attempt_at_once(
    api: Api,
    site: Site,
    generator: ScriptedGenerator,
    monkeypatch: pytest.MonkeyPatch,
    part: str,
    cause: str,
) -> None:
    generator.breaks, generator.breaks_after = 1, 4
    worker = site.start_worker(pause_seconds=0.5)
    job = await api.submit(**EVERY_TWO)
    await api.until(job.id, lambda job: job.causes and job.status == "queued")
    await site.stop(worker)

    def unwritable(*_: Any, **__: Any) -> Any:
        raise ValueError("out of range")

    monkeypatch.setattr(wire, part, unwritable)
    site.start_worker(attempts=2)
    job = await api.ended(job.id)
    assert job.status == JobStatus.FAILED
    assert job.causes[1] == f"attempt 2: {cause}"
