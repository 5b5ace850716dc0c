"""Steps whose loss or gradient is not a number: told, counted, and in the end a reason to fail."""

from __future__ import annotations

import json

from dualprocess.schemas import JobStatus
from services.orchestrator.store.artifacts import LORA_FILE
from tests.orchestrator.conftest import Api, Site
from tests.orchestrator.scripted import LORA, NOT_FINITE, ScriptedGenerator


async def test_skipped_steps_are_told_and_counted(
    api: Api, site: Site, generator: ScriptedGenerator
) -> None:
    generator.skips = [2, 3]
    site.start_worker()
    job = await api.ended((await api.submit(optimizer={"steps": 4})).id)
    assert (job.status, job.step, job.skipped) == (JobStatus.SUCCEEDED, 4, 2)
    events = (await api.events(job.id)).text
    assert events.count("event: skipped") == 2
    metrics = (await api.http.get(f"/v1/jobs/{job.id}/artifacts/metrics.jsonl")).text
    lines = [json.loads(line) for line in metrics.splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert [line.get("reason") for line in lines] == [None, NOT_FINITE, NOT_FINITE, None]


async def test_an_attempt_that_goes_on_counts_those_before_its_checkpoint(
    api: Api, site: Site, generator: ScriptedGenerator
) -> None:
    generator.skips, generator.breaks, generator.breaks_after = [1, 3], 1, 2
    site.start_worker()
    job = await api.submit(optimizer={"steps": 4, "checkpoint_every": 2})
    job = await api.ended(job.id)
    assert (job.status, job.attempt, job.skipped) == (JobStatus.SUCCEEDED, 2, 2)


async def test_a_job_that_gives_up_fails_with_the_last_good_lora(
    api: Api, site: Site, generator: ScriptedGenerator
) -> None:
    generator.skips, generator.gives_up_after = [2, 3], 3
    site.start_worker()
    job = await api.ended((await api.submit(optimizer={"steps": 9})).id)
    assert (job.status, job.attempt, job.skipped) == (JobStatus.FAILED, 1, 2)
    assert job.error == f"the generator tiny-flux: {NOT_FINITE}"
    assert job.scores.lora is None
    left = {artifact.name for artifact in job.artifacts}
    assert {LORA_FILE, "samples.png", "loss.png", "metrics.jsonl", "job.json"} <= left
    lora = await api.http.get(f"/v1/jobs/{job.id}/artifacts/{LORA_FILE}")
    assert lora.content == LORA
