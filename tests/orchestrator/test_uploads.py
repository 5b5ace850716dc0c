"""Files of a submission that broke off are removed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from redis.exceptions import ConnectionError

from services.orchestrator.store.queue import Queue
from services.orchestrator.store.redis import UPLOADS, Client
from tests.orchestrator.conftest import SPEC, Api, Site
from tests.orchestrator.test_deletion import files, traces
from tests.orchestrator.test_start import GOOD, sent

HOUR_MS = 3_600_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "artifacts"


async def broken_off(api: Api, monkeypatch: pytest.MonkeyPatch, *, accepted: bool) -> None:
    """A submission whose answer is lost, before or after Redis made the job."""
    submit = Queue.submit

    async def submitted(*args: object, **named: object) -> None:
        if accepted:
            await submit(*args, **named)  # type: ignore[arg-type]
        raise ConnectionError("lost")

    with monkeypatch.context() as patch:
        patch.setattr(Queue, "submit", submitted)
        answer = await api.http.post("/v1/jobs", json=SPEC | sent(GOOD))
    assert answer.status_code == 503


async def swept(redis: Client) -> None:
    """An hour later."""
    for job_id in await redis.zrange(UPLOADS, 0, -1):
        await redis.zincrby(UPLOADS, -2 * HOUR_MS, job_id)
    async with asyncio.timeout(10):
        while await redis.exists(UPLOADS):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_files_of_a_job_that_never_was_go(
    api: Api, site: Site, redis: Client, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await broken_off(api, monkeypatch, accepted=False)
    [job_id] = await redis.zrange(UPLOADS, 0, -1)
    site.start_worker(sweep_seconds=0.02)
    await asyncio.sleep(0.2)
    assert files(folder) != []
    await swept(redis)
    assert await traces(redis, job_id) == []
    assert files(folder) == []


async def test_files_of_a_job_that_was_accepted_unheard_stay(
    api: Api, site: Site, redis: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    await broken_off(api, monkeypatch, accepted=True)
    site.start_worker(sweep_seconds=0.02)
    await swept(redis)
    [job] = (await api.http.get("/v1/jobs")).json()["jobs"]
    kept = await api.http.get(f"/v1/jobs/{job['id']}/artifacts/start.safetensors")
    assert kept.content == GOOD


async def test_an_accepted_job_leaves_nothing_to_look_at(api: Api, redis: Client) -> None:
    await api.submit(**sent(GOOD))
    assert not await redis.exists(UPLOADS)


async def test_files_of_a_submission_that_failed_go_at_once(
    api: Api, redis: Client, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(*_: object, **__: object) -> None:
        raise RuntimeError("a mistake")

    monkeypatch.setattr(Queue, "submit", refused)
    with pytest.raises(RuntimeError):
        await api.http.post("/v1/jobs", json=SPEC | sent(GOOD))
    assert files(folder) == []
    assert await redis.keys("dualprocess:job*") == []
