"""Many jobs in one request: all or nothing; counted, limited and cancelled together."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from dualprocess.schemas import Batch, JobPage, JobStatus
from services.orchestrator.api import batches as batches_module
from services.orchestrator.api.app import create_app
from services.orchestrator.api.settings import ApiSettings
from services.orchestrator.store.redis import Client
from tests.orchestrator.conftest import SPEC, Api, Guarded, Site
from tests.orchestrator.scripted import ScriptedGenerator
from tests.redis_server import RedisServer

TEMPLATE = {key: value for key, value in SPEC.items() if key != "prompt"}


async def submit(api: Api, *, key: str | None = None, **body: Any) -> Batch:
    headers = {"Idempotency-Key": key} if key else {}
    answer = await api.http.post("/v1/batches", json=body, headers=headers)
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"/v1/batches/{answer.json()['id']}"
    return Batch.model_validate_json(answer.content)


async def read(api: Api, batch_id: str) -> Batch:
    return Batch.model_validate_json((await api.http.get(f"/v1/batches/{batch_id}")).content)


def errors(answer: httpx.Response) -> dict[str, str]:
    assert answer.status_code == 422, answer.text
    return {error["field"]: error["message"] for error in answer.json()["errors"]}


async def jobs_there_are(api: Api) -> int:
    return len((await api.http.get("/v1/jobs", params={"limit": 200})).json()["jobs"])


async def test_specs_become_jobs_in_their_order(api: Api, site: Site) -> None:
    specs = [SPEC | {"name": f"number {index}"} for index in range(12)]
    batch = await submit(api, specs=specs, name="a dozen")
    assert (batch.name, batch.size) == ("a dozen", 12)
    assert [entry.name for entry in batch.jobs] == [spec["name"] for spec in specs]
    assert batch.counts[JobStatus.QUEUED] == 12
    assert [(await api.job(entry.id)).position for entry in batch.jobs] == list(range(12))
    site.start_worker(slots=4)
    for entry in batch.jobs:
        job = await api.ended(entry.id)
        assert (job.status, job.batch) == (JobStatus.SUCCEEDED, batch.id)
    ended = await read(api, batch.id)
    assert ended.counts == {status: 12 * (status == "succeeded") for status in JobStatus}


async def test_a_spec_goes_over_prompts_and_seeds(api: Api) -> None:
    spec = TEMPLATE | {"name": "red"}
    batch = await submit(api, spec=spec, prompts=["a circle", "a square"], seeds=[7, 9])
    assert [entry.name for entry in batch.jobs] == [
        "red, a circle, seed 7",
        "red, a circle, seed 9",
        "red, a square, seed 7",
        "red, a square, seed 9",
    ]
    last = await api.job(batch.jobs[-1].id)
    assert last.spec.model_dump()["prompts"] == ["a square"]
    assert last.spec.model_dump()["optimizer"]["seed"] == 9


async def test_a_sweep_names_the_values_of_each_job(api: Api) -> None:
    sweep = {"optimizer.lr": [1e-4, 1e-3], "guard": ["off", {"anchor": 0.5}]}
    spec = SPEC | {"guard": "off"}
    batch = await submit(api, spec=spec, sweep=sweep)
    assert [entry.name for entry in batch.jobs] == [
        "lr 0.0001, guard off",
        'lr 0.0001, guard {"anchor": 0.5}',
        "lr 0.001, guard off",
        'lr 0.001, guard {"anchor": 0.5}',
    ]
    last = (await api.job(batch.jobs[-1].id)).spec.model_dump()
    assert (last["optimizer"]["lr"], last["guard"]["anchor"]) == (1e-3, 0.5)
    # A part of a guard that is off: the other parts stay off.
    batch = await submit(api, spec=spec, sweep={"guard.anchor": [0.25]})
    guard = (await api.job(batch.jobs[0].id)).spec.model_dump()["guard"]
    assert guard == {"anchor": 0.25, "margin": 1.0, "worst_case": 0.0}


@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        ({"sweep": {"optimizer.lr": [0.1, 7]}}, "sweep.optimizer.lr", "less than or equal to 1"),
        ({"sweep": {"optimizer.lrr": [1]}}, "sweep.optimizer.lrr", "did you mean 'lr'"),
        ({"sweep": {"generator.size": [1]}}, "sweep.generator.size", "no such place"),
        ({"sweep": {"questions.7.weight": [1]}}, "sweep.questions.7.weight", "no such place"),
        ({"sweep": {"image.width": [64, 67]}}, "spec.image.width", "(with width 67)"),
        ({"sweep": {"name": ["a"]}}, "sweep", "name can't be swept"),
        ({"sweep": {}}, "sweep", "at least one"),
        ({"sweep": {"lora.rank": [1] * 64, "lora.alpha": [1] * 64}}, "sweep", "make 4,096 jobs"),
    ],
)
async def test_a_sweep_that_cannot_be_names_the_field(
    api: Api, body: dict[str, Any], field: str, message: str
) -> None:
    found = errors(await api.http.post("/v1/batches", json={"spec": SPEC} | body))
    assert message in found[field]
    assert await jobs_there_are(api) == 0


async def test_a_sweep_needs_one_spec(api: Api) -> None:
    body = {"specs": [SPEC], "sweep": {"lora.rank": [1]}}
    assert "is for spec only" in errors(await api.http.post("/v1/batches", json=body))["sweep"]


async def test_repeats_count_up_from_the_specs_own_seed(api: Api) -> None:
    batch = await submit(api, spec=SPEC, repeats=3)
    jobs = [await api.job(entry.id) for entry in batch.jobs]
    assert [job.spec.model_dump()["optimizer"]["seed"] for job in jobs] == [100, 101, 102]


async def test_its_jobs_come_in_pages(api: Api) -> None:
    await api.submit()
    batch = await submit(api, spec=SPEC, repeats=5)
    await api.submit()
    await api.http.post(f"/v1/jobs/{batch.jobs[0].id}/cancel")
    seen: list[str] = []
    query: dict[str, str] = {"limit": "2", "status": "queued"}
    while True:
        answer = await api.http.get(f"/v1/batches/{batch.id}/jobs", params=query)
        page = JobPage.model_validate_json(answer.content)
        seen += [job.id for job in page.jobs]
        if page.next is None:
            break
        query["cursor"] = page.next
    assert seen == [entry.id for entry in batch.jobs][:0:-1]


async def test_one_bad_spec_and_there_is_no_batch(api: Api) -> None:
    specs = [SPEC, SPEC | {"generator": "tiny-flax"}, SPEC, SPEC | {"image": {"width": 65}}]
    found = errors(await api.http.post("/v1/batches", json={"specs": specs}))
    assert set(found) == {"specs.1.generator", "specs.3.image.width"}
    assert "tiny-flux" in found["specs.1.generator"]
    specs[1] = SPEC | {"optimizer": {"stepz": 3}}
    found = errors(await api.http.post("/v1/batches", json={"specs": specs}))
    assert "did you mean 'steps'?" in found["specs.1.optimizer.stepz"]
    assert await jobs_there_are(api) == 0


@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        ({}, "spec", "write either specs, or spec"),
        ({"spec": SPEC, "specs": [SPEC]}, "specs", "leave one of them out"),
        ({"specs": []}, "specs", "at least one"),
        ({"specs": [SPEC] * 1001}, "specs", "1000"),
        ({"specs": [SPEC], "prompts": ["a"]}, "prompts", "into each of them"),
        ({"spec": SPEC, "prompts": ["a"]}, "prompts", "spec's own"),
        ({"spec": SPEC, "seeds": [1], "repeats": 2}, "repeats", "leave one of them out"),
        ({"spec": TEMPLATE}, "spec.prompt", "is missing"),
        ({"spec": TEMPLATE, "prompts": ["a"] * 11, "repeats": 100}, "prompts", "at most 1,000"),
        ({"spec": SPEC, "seads": [1]}, "seads", "'seeds'"),
        (
            {"specs": [SPEC | {"lora": {"start": {"file": "AAAA"}}}]},
            "specs.0.lora.start.file",
            "lora.start.job",
        ),
    ],
)
async def test_a_batch_that_can_not_be_names_field_and_remedy(
    api: Api, body: dict[str, Any], field: str, message: str
) -> None:
    assert message in errors(await api.http.post("/v1/batches", json=body))[field]


async def test_specs_too_large_together_are_refused(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches_module, "MAX_STORED_BYTES", 5000)
    found = errors(await api.http.post("/v1/batches", json={"spec": SPEC, "repeats": 50}))
    assert "several batches" in found["specs"]


async def test_the_same_key_and_request_are_one_batch(api: Api) -> None:
    first, again = [await submit(api, key="once", spec=SPEC, repeats=3) for _ in range(2)]
    assert first == again
    assert await jobs_there_are(api) == 3
    other = {"spec": SPEC, "repeats": 4}
    headers = {"Idempotency-Key": "once"}
    found = errors(await api.http.post("/v1/batches", json=other, headers=headers))
    assert first.id in found["Idempotency-Key"]
    assert errors(await api.http.post("/v1/jobs", json=SPEC, headers=headers))


async def test_each_job_counts_for_the_quota_and_none_comes_alone(guarded: Guarded) -> None:
    owner = await guarded.owner(queued=5, steps=10)
    await owner.submit()
    refused = await owner.http.post("/v1/batches", json={"spec": SPEC, "repeats": 5})
    assert refused.status_code == 429
    assert await jobs_there_are(owner) == 1
    await submit(owner, spec=SPEC, repeats=4)
    # For these, waiting would never help.
    found = errors(await owner.http.post("/v1/batches", json={"spec": SPEC, "repeats": 6}))
    assert "quota queued of this key is 5" in found["prompts"]
    long = SPEC | {"optimizer": {"steps": 11}}
    found = errors(await owner.http.post("/v1/batches", json={"specs": [SPEC, long]}))
    assert set(found) == {"specs.1.optimizer.steps"}


async def test_a_cancelled_batch_ends_what_waits_and_stops_what_runs(
    api: Api, site: Site, generator: ScriptedGenerator
) -> None:
    generator.go.clear()
    other = await api.submit()
    batch = await submit(api, spec=SPEC, repeats=4)
    site.start_worker(slots=2)
    running = await api.until(batch.jobs[0].id, lambda job: job.step)
    answer = await api.http.post(f"/v1/batches/{batch.id}/cancel")
    counts = Batch.model_validate_json(answer.content).counts
    assert (counts[JobStatus.CANCELLED], counts[JobStatus.QUEUED]) == (3, 0)
    assert (await api.ended(running.id)).status == JobStatus.CANCELLED
    assert (await api.http.post(f"/v1/batches/{batch.id}/cancel")).status_code == 200
    generator.go.set()
    assert (await api.ended(other.id)).status == JobStatus.SUCCEEDED


async def test_a_batch_goes_with_the_last_of_its_jobs(api: Api) -> None:
    batch = await submit(api, key="k", spec=SPEC, repeats=2)
    await api.http.post(f"/v1/batches/{batch.id}/cancel")
    first, second = [entry.id for entry in batch.jobs]
    assert (await api.http.delete(f"/v1/jobs/{first}")).status_code == 204
    left = await read(api, batch.id)
    assert ([entry.id for entry in left.jobs], left.size) == ([second], 2)
    assert left.counts[JobStatus.CANCELLED] == 1
    assert (await api.http.delete(f"/v1/jobs/{second}")).status_code == 204
    assert (await api.http.get(f"/v1/batches/{batch.id}")).status_code == 404
    # Its key is free again.
    assert (await submit(api, key="k", spec=SPEC, repeats=2)).id != batch.id


async def test_a_thousand_jobs_in_one_request_and_few_round_trips(api: Api, redis: Client) -> None:
    before = await redis.info("stats")
    batch = await submit(api, specs=[SPEC | {"name": f"number {n}"} for n in range(1000)])
    assert batch.counts[JobStatus.QUEUED] == len(batch.jobs) == 1000
    after = await redis.info("stats")
    assert [entry.name for entry in batch.jobs] == [f"number {n}" for n in range(1000)]
    # A round trip is one read of Redis's, or some where much is sent: 16 KiB are read at once.
    reads = after["total_reads_processed"] - before["total_reads_processed"]
    assert reads < 300
    assert await jobs_there_are(api) == 200


@pytest.mark.parametrize("written", [0.1, 0.5, 0.9, 1.0])
async def test_a_redis_that_dies_leaves_a_whole_batch_or_none(
    tmp_path: Path, written: float
) -> None:
    """As far as ``written`` of what the batch made Redis write had reached its file."""
    server = RedisServer(tmp_path)
    server.start()
    settings = ApiSettings(redis_url=server.url, artifacts=(tmp_path / "artifacts").as_uri())
    try:
        async with serving(settings) as api:
            job = await api.submit()
            before = append_only_file(tmp_path).stat().st_size
            batch = await submit(api, key="once", spec=SPEC, repeats=20)
        server.stop()
        file = append_only_file(tmp_path)
        after = file.stat().st_size
        os.truncate(file, before + int((after - before) * written))
        server.start()
        async with serving(settings) as api:
            whole = written == 1.0
            found = await api.http.get(f"/v1/batches/{batch.id}")
            assert found.status_code == (200 if whole else 404)
            assert (await api.job(job.id)).position == 0
            assert await jobs_there_are(api) == (21 if whole else 1)
            # The client got no answer, so it asks again.
            again = await submit(api, key="once", spec=SPEC, repeats=20)
            assert (again.id == batch.id) == whole
            assert await jobs_there_are(api) == 21
    finally:
        server.stop()


def append_only_file(folder: Path) -> Path:
    """Redis's own; newer ones keep several, of which the last grows."""
    return max(folder.rglob("*.aof"), key=lambda file: file.stat().st_size)


@contextlib.asynccontextmanager
async def serving(settings: ApiSettings) -> AsyncIterator[Api]:
    app = create_app(settings)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://localhost") as http,
    ):
        yield Api(http)
