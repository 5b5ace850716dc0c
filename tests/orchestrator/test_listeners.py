"""Many listeners need one connection to Redis, hear everything once, and are limited."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from redis.exceptions import ConnectionError

from dualprocess.schemas import Job, JobStatus, StatusEvent
from services.orchestrator.api.settings import ApiSettings
from services.orchestrator.following.reader import Following
from services.orchestrator.store.ids import new_job_id
from services.orchestrator.store.keys import ApiKeys, Scope
from services.orchestrator.store.quotas import Quotas
from services.orchestrator.store.redis import Client, events_key
from tests.orchestrator.api_process import ApiProcess, api_process
from tests.orchestrator.conftest import LONGEST_WAIT, QUOTAS, SPEC
from tests.redis_server import RedisServer

_LISTENERS = 120


@pytest.fixture
async def following(redis: Client) -> AsyncIterator[Following]:
    following = Following(redis)
    yield following
    await following.close()


async def tell(redis: Client, job_id: str, *texts: str, end: bool = False) -> None:
    """Events that wait for these, and perhaps the job's end."""
    events = [StatusEvent(status=JobStatus.QUEUED, waiting_for=text) for text in texts]
    events += [StatusEvent(status=JobStatus.CANCELLED)] * end
    for event in events:
        await redis.xadd(events_key(job_id), {"event": event.model_dump_json()})


async def heard(following: Following, job_id: str, after: str = "0-0") -> list[str]:
    """The ids of all events up to the end."""
    async with asyncio.timeout(LONGEST_WAIT):
        return [one.id async for told in following.follow(job_id, after) for one in told]


async def readers(redis: Client) -> int:
    """Connections of Redis on which somebody waits for events."""
    return sum("b" in client["flags"] for client in await redis.client_list())


async def until_readers_are(count: int, redis: Client) -> None:
    async with asyncio.timeout(LONGEST_WAIT):
        while await readers(redis) != count:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def connected(api: ApiProcess, key: str | None = None) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(
        base_url=api.url, timeout=30, headers=headers, limits=limits
    ) as http:
        yield http


def stream(
    http: httpx.AsyncClient, job_id: str
) -> contextlib.AbstractAsyncContextManager[httpx.Response]:
    return http.stream("GET", f"/v1/jobs/{job_id}/events")


async def test_listeners_of_a_server_share_one_reader_and_starve_nobody(
    redis_server: RedisServer, redis: Client, tmp_path: Path
) -> None:
    async with (
        api_process(redis_server.url, tmp_path, f"--streams={_LISTENERS}") as api,
        connected(api) as http,
        contextlib.AsyncExitStack() as open_streams,
    ):
        jobs = [
            Job.model_validate_json((await http.post("/v1/jobs", json=SPEC)).content).id
            for _ in range(3)
        ]
        streams = [
            await open_streams.enter_async_context(stream(http, jobs[number % 3]))
            for number in range(_LISTENERS)
        ]
        assert {response.status_code for response in streams} == {200}
        assert (await http.get("/readyz")).is_success
        await until_readers_are(1, redis)
        # Those of one pool, and this test's own.
        assert len(await redis.client_list()) < 70

        full = await http.get(f"/v1/jobs/{jobs[0]}/events")
        assert full.status_code == 429
        assert full.json()["title"] == "All event streams of this server are taken"
        assert "--streams" in full.json()["detail"]
        assert int(full.headers["Retry-After"]) > 0

        for job_id in jobs:
            await tell(redis, job_id, "one", "two", end=True)
        texts = [(await response.aread()).decode() for response in streams]
        for job_id, text in zip(jobs * _LISTENERS, texts, strict=False):
            told = await redis.xrange(events_key(job_id))
            assert [line[4:] for line in text.splitlines() if line.startswith("id: ")] == [
                entry_id for entry_id, _ in told
            ]


async def test_each_listener_hears_what_is_behind_its_place_once_and_in_order(
    redis: Client, following: Following
) -> None:
    job_id = new_job_id()
    await tell(redis, job_id, *"abc")
    listening = [asyncio.create_task(heard(following, job_id))]
    places = ["0-0"]
    for number in range(40):
        # More than is kept for all, together with what comes while others begin.
        await tell(redis, job_id, f"{number}" + "long " * 2000)
        so_far = [entry_id for entry_id, _ in await redis.xrange(events_key(job_id))]
        places.append(so_far[number])
        listening.append(asyncio.create_task(heard(following, job_id, so_far[number])))
    await tell(redis, job_id, end=True)
    whole = [entry_id for entry_id, _ in await redis.xrange(events_key(job_id))]
    for place, ids in zip(places, await asyncio.gather(*listening), strict=True):
        assert ids == [
            entry_id for entry_id in whole if place == "0-0" or order(entry_id) > order(place)
        ]


def order(entry_id: str) -> tuple[int, int]:
    milliseconds, sequence = entry_id.split("-")
    return int(milliseconds), int(sequence)


async def test_nothing_is_read_while_nobody_listens(redis: Client, following: Following) -> None:
    job_id = new_job_id()
    await tell(redis, job_id, "a")
    async with contextlib.aclosing(following.follow(job_id)) as told:
        assert len(await anext(told)) == 1
        task = asyncio.create_task(anext(told))
        await until_readers_are(1, redis)
        await tell(redis, job_id, "b")
        assert len(await task) == 1
    await until_readers_are(0, redis)
    # And whoever comes later hears everything as well.
    await tell(redis, job_id, end=True)
    assert len(await heard(following, job_id)) == 3


async def test_an_event_that_cannot_be_read_is_nothing_to_other_jobs(
    redis: Client, following: Following
) -> None:
    good, bad = new_job_id(), new_job_id()
    for job_id in (good, bad):
        await tell(redis, job_id, "a")
    listening = [asyncio.create_task(heard(following, job_id)) for job_id in (good, bad)]
    await until_readers_are(1, redis)
    await redis.xadd(events_key(bad), {"event": "no JSON"})
    await tell(redis, good, end=True)
    assert len(await listening[0]) == 2
    with pytest.raises(ConnectionError):
        await listening[1]


async def test_a_deleted_job_ends_its_streams(redis: Client, following: Following) -> None:
    job_id = new_job_id()
    await tell(redis, job_id, "a")
    listening = asyncio.create_task(heard(following, job_id))
    await until_readers_are(1, redis)
    await redis.delete(events_key(job_id))
    assert len(await listening) == 1
    assert await heard(following, job_id) == []


async def test_streams_have_a_limit_a_key_and_in_all_and_connections_one_too(
    redis_server: RedisServer, redis: Client, tmp_path: Path
) -> None:
    flags = ["--auth", "--streams=3", "--streams-per-key=2", "--connections=12"]
    scopes = {Scope.SUBMIT, Scope.READ}
    anna_key, ben_key = [
        await ApiKeys(redis).create(name, scopes, Quotas.model_validate(QUOTAS))
        for name in ("anna", "ben")
    ]
    async with (
        api_process(redis_server.url, tmp_path, *flags) as api,
        connected(api, anna_key) as anna,
        connected(api, ben_key) as ben,
    ):
        annas, bens = [(await who.post("/v1/jobs", json=SPEC)).json()["id"] for who in (anna, ben)]
        async with stream(anna, annas), stream(ben, bens):
            async with stream(anna, annas) as second:
                assert second.status_code == 200
                full = await anna.get(f"/v1/jobs/{annas}/events")
                assert full.status_code == 429
                assert full.json()["title"] == "All event streams of this key are taken"
                for part in ("At most 2 ", "Close one", "GET /v1/jobs/{id}"):
                    assert part in full.json()["detail"]
                assert full.headers["Retry-After"] == "5"
                # The refused client's connection is closed.
                assert full.headers["Connection"] == "close"
                full = await ben.get(f"/v1/jobs/{bens}/events")
                assert full.json()["title"] == "All event streams of this server are taken"

                # The page's own streams count, whether it is there or not.
                page = await anna.get("/ui/gradio_api/heartbeat/abc")
                assert page.json()["title"] == "All event streams of this key are taken"
                # A request that waits for its job counts, and is refused before the job exists.
                images = {"prompt": "a circle", "generator": "tiny-flux", "wait": 20}
                assert (await ben.post("/v1/images", json=images)).status_code == 429
                assert len((await ben.get("/v1/jobs")).json()["jobs"]) == 1
                images["wait"] = 0
                assert (await ben.post("/v1/images", json=images)).status_code == 202
            # A closed one is free again.
            async with asyncio.timeout(LONGEST_WAIT):
                while (status := await begun(anna, annas)) != 200:
                    assert status == 429

            async with contextlib.AsyncExitStack() as idle:
                for _ in range(12):
                    _, writer = await asyncio.open_connection("127.0.0.1", api.port)
                    idle.callback(writer.close)
                # The kernel takes them before the API does.
                async with asyncio.timeout(LONGEST_WAIT):
                    while (await ben.get("/healthz")).status_code != 503:  # noqa: ASYNC110
                        await asyncio.sleep(0.05)
            async with asyncio.timeout(LONGEST_WAIT):
                while (await ben.get("/healthz")).status_code != 200:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)


async def begun(http: httpx.AsyncClient, job_id: str) -> int:
    async with stream(http, job_id) as response:
        return response.status_code


@pytest.mark.parametrize("flag", ["--connections=1000", "--streams=4000"])
def test_streams_must_leave_connections_to_others(
    flag: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["api", flag])
    with pytest.raises(SystemExit):
        ApiSettings.from_command_line()
    said = capsys.readouterr().err
    assert "--connections (or DUALPROCESS_CONNECTIONS): must be more than --streams" in said
