"""Deleted and expired jobs: nothing of them remains."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from dualprocess import Client as ApiClient
from dualprocess.errors import Conflict, NotFound
from dualprocess.schemas import Job, JobStatus
from services.orchestrator.api.app import create_app
from services.orchestrator.api.settings import ApiSettings
from services.orchestrator.store.redis import Client, idempotency_key
from tests.orchestrator.conftest import ASKED, SPEC, Api, Guarded, Site
from tests.orchestrator.receiver import receiving
from tests.orchestrator.scripted import ScriptedGenerator
from tests.orchestrator.test_full_store import Store
from tests.orchestrator.test_start import GOOD, sent
from tests.redis_server import RedisServer

MARK = "heliotrope"


async def traces(redis: Client, needle: str) -> list[str]:
    """Every key that is named by the needle or holds it."""
    return [
        key
        for key in await redis.keys("*")
        if needle in key or needle in str(await _held(redis, key))
    ]


async def _held(redis: Client, key: str) -> Any:
    match await redis.type(key):
        case "string":
            return await redis.get(key)
        case "hash":
            return await redis.hgetall(key)
        case "list":
            return await redis.lrange(key, 0, -1)
        case "set":
            return await redis.smembers(key)
        case "zset":
            return await redis.zrange(key, 0, -1)
        case "stream":
            return await redis.xrange(key)
        case other:
            raise AssertionError(f"what is {other}?")


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path != folder / "jobs"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "artifacts"


async def test_nothing_of_a_deleted_job_remains(
    api: Api, site: Site, redis: Client, folder: Path, generator: ScriptedGenerator
) -> None:
    generator.breaks = 1
    site.start_worker()
    body = SPEC | sent(GOOD) | {"name": MARK, "deadline": 600, "webhook": None}
    headers = {"Idempotency-Key": "mine"}
    made = Job.model_validate_json(
        (await api.http.post("/v1/jobs", json=body, headers=headers)).content
    )
    job = await api.ended(made.id)
    assert job.status == JobStatus.SUCCEEDED
    stray = folder / "jobs" / job.id / "99" / "a-zombies.png"
    stray.parent.mkdir()
    stray.write_bytes(b"")
    assert await traces(redis, job.id)
    answer = await api.http.delete(f"/v1/jobs/{job.id}")
    assert (answer.status_code, answer.content) == (204, b"")
    assert await traces(redis, job.id) == []
    assert await traces(redis, MARK) == []
    assert files(folder) == []
    for path in ("", "/events", "/artifacts/job.json"):
        assert (await api.http.get(f"/v1/jobs/{job.id}{path}")).status_code == 404
    assert (await api.http.delete(f"/v1/jobs/{job.id}")).status_code == 404
    # Its idempotency key is free again.
    again = await api.http.post("/v1/jobs", json=body, headers=headers)
    assert (again.status_code, again.json()["id"] == job.id) == (202, False)


async def test_a_message_that_was_not_sent_goes_with_its_job(
    redis: Client, redis_server: RedisServer, artifacts: str
) -> None:
    async with receiving() as receiver:
        pass
    settings = ApiSettings(
        redis_url=redis_server.url, artifacts=artifacts, poll_seconds=0.02, webhook_loopback=True
    )
    async with serving(settings) as api:
        secret = "whsec_" + "A" * 32
        job = await api.submit(webhook={"url": receiver.url, "secret": secret})
        await api.http.post(f"/v1/jobs/{job.id}/cancel")
        await api.until(job.id, lambda job: job.webhook and job.webhook.error)
        assert (await api.http.delete(f"/v1/jobs/{job.id}")).status_code == 204
        assert await traces(redis, job.id) == []


@contextlib.asynccontextmanager
async def serving(settings: ApiSettings) -> AsyncIterator[Api]:
    app = create_app(settings)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://localhost", headers=ASKED
        ) as http,
    ):
        yield Api(http)


async def test_only_a_job_that_has_ended_can_be_deleted(
    api: Api, site: Site, generator: ScriptedGenerator
) -> None:
    queued = await api.submit()
    answer = await api.http.delete(f"/v1/jobs/{queued.id}")
    assert (answer.status_code, answer.json()["title"]) == (409, f"Job {queued.id} is queued")
    generator.go.clear()
    site.start_worker()
    await api.until(queued.id, lambda job: job.step == 1)
    answer = await api.http.delete(f"/v1/jobs/{queued.id}")
    assert answer.status_code == 409
    assert "cancel first" in answer.json()["detail"]
    generator.go.set()
    assert (await api.ended(queued.id)).status == JobStatus.SUCCEEDED
    assert (await api.http.delete(f"/v1/jobs/{queued.id}")).status_code == 204


async def test_a_key_that_stands_for_another_job_by_now_is_kept(api: Api, redis: Client) -> None:
    """An idempotency key is remembered for a day; then it may be used anew."""

    async def sent() -> str:
        answer = await api.http.post("/v1/jobs", json=SPEC, headers={"Idempotency-Key": "mine"})
        return str(answer.json()["id"])

    first = await sent()
    await redis.delete(idempotency_key("anonymous", "mine"))
    second = await sent()
    assert second != first
    await api.http.post(f"/v1/jobs/{first}/cancel")
    assert (await api.http.delete(f"/v1/jobs/{first}")).status_code == 204
    assert await sent() == second


async def test_deleting_needs_the_scope_to_submit(guarded: Guarded) -> None:
    reader = await guarded.owner("read")
    assert (await reader.http.delete(f"/v1/jobs/{'0' * 26}")).status_code == 403
    owner, stranger = await guarded.owner(), await guarded.owner()
    admin = await guarded.owner("admin")
    jobs = [await owner.submit() for _ in range(2)]
    for job in jobs:
        await owner.http.post(f"/v1/jobs/{job.id}/cancel")
    assert (await stranger.http.delete(f"/v1/jobs/{jobs[0].id}")).status_code == 404
    assert (await owner.http.delete(f"/v1/jobs/{jobs[0].id}")).status_code == 204
    assert (await admin.http.delete(f"/v1/jobs/{jobs[1].id}")).status_code == 204


async def test_files_that_a_store_did_not_let_go_go_later(
    api: Api, site: Site, redis: Client, folder: Path
) -> None:
    worker = site.start_worker()
    job = await api.ended((await api.submit()).id)
    await site.stop(worker)
    store = Store(folder)
    store.close()
    assert (await api.http.delete(f"/v1/jobs/{job.id}")).status_code == 204
    assert await traces(redis, job.id) == ["dualprocess:jobs:deleted"]
    store.open()
    assert files(folder) != []
    site.start_worker(sweep_seconds=0.1)
    await gone(redis, job.id)
    assert files(folder) == []


async def gone(redis: Client, job_id: str) -> None:
    async with asyncio.timeout(10):
        while await traces(redis, job_id):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


DAY = 86_400.0


async def test_ended_jobs_expire_and_others_do_not(
    api: Api, site: Site, redis: Client, folder: Path, generator: ScriptedGenerator
) -> None:
    first = site.start_worker()
    jobs = [await api.ended((await api.submit()).id) for _ in range(2)]
    await site.stop(first)
    queued = await api.submit(generator="flux-schnell", image={"width": 512, "height": 512})
    # The first one ended 31 days ago.
    await redis.zincrby("dualprocess:jobs:finished", -31 * DAY * 1000, jobs[0].id)
    site.start_worker(sweep_seconds=0.05)
    await gone(redis, jobs[0].id)
    assert not (folder / "jobs" / jobs[0].id).exists()
    assert await api.job(jobs[1].id) == jobs[1]
    assert (await api.job(queued.id)).status == JobStatus.QUEUED


@pytest.mark.parametrize(("poll_seconds", "left"), [(60, 10), (0.02, 0)])
async def test_a_sweep_is_a_bounded_batch_and_the_next_look_goes_on(
    api: Api,
    redis: Client,
    redis_server: RedisServer,
    artifacts: str,
    poll_seconds: float,
    left: int,
) -> None:
    for _ in range(30):
        job = await api.submit()
        await api.http.post(f"/v1/jobs/{job.id}/cancel")
        await redis.zincrby("dualprocess:jobs:finished", -31 * DAY * 1000, job.id)
    settings = ApiSettings(
        redis_url=redis_server.url, artifacts=artifacts, poll_seconds=poll_seconds
    )
    async with serving(settings) as other:
        async with asyncio.timeout(10):
            while await redis.zcard("dualprocess:jobs:finished") > left:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        await asyncio.sleep(0.2)
        assert len((await other.http.get("/v1/jobs")).json()["jobs"]) == left


async def test_nothing_expires_where_jobs_are_kept_for_ever(
    api: Api, site: Site, redis: Client
) -> None:
    job = await api.submit()
    await api.http.post(f"/v1/jobs/{job.id}/cancel")
    await redis.zincrby("dualprocess:jobs:finished", -9999 * DAY * 1000, job.id)
    site.start_worker(keep_days=0, sweep_seconds=0.02)
    await asyncio.sleep(0.3)
    assert (await api.job(job.id)).status == JobStatus.CANCELLED


async def test_events_go_before_their_job_but_for_the_last(
    api: Api, site: Site, redis: Client
) -> None:
    site.start_worker(sweep_seconds=0.05)
    job = await api.ended((await api.submit()).id)
    ended_at = await redis.zscore("dualprocess:jobs:finished:events", job.id)
    await redis.zadd("dualprocess:jobs:finished:events", {job.id: ended_at - 8 * DAY * 1000})
    async with asyncio.timeout(10):
        while await redis.xlen(f"dualprocess:job:{job.id}:events") > 1:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    told = (await api.events(job.id)).text
    assert re.findall(r"event: (\w+)", told) == ["status"]
    assert '"succeeded"' in told
    assert await api.job(job.id) == job


def test_the_client_deletes() -> None:
    answers = [httpx.Response(204), *(httpx.Response(c, json=_problem(c)) for c in (409, 404))]
    asked = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append((request.method, request.url.path))
        return answers.pop(0)

    client = ApiClient("http://service", transport=httpx.MockTransport(handle))
    client.delete("x")
    with pytest.raises(Conflict):
        client.delete("x")
    with pytest.raises(NotFound):
        client.delete("x")
    assert set(asked) == {("DELETE", "/v1/jobs/x")}


def _problem(status: int) -> dict[str, Any]:
    return {"title": "No", "status": status}
