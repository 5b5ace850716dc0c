"""A Redis that may lose jobs is reported at the start and in /readyz; a setting refuses it."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from redis import Redis

from services.common.redis_state import Look, first_look
from services.orchestrator.api.app import create_app
from services.orchestrator.api.settings import ApiSettings
from tests.redis_server import RedisServer

CARELESS = ("--appendonly", "no", "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")
PROMISED = {"redis_version": "7.2.4", "maxmemory_policy": "noeviction", "aof_enabled": 1}


@pytest.fixture
def careless(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path, options=CARELESS)
    server.start()
    yield server
    server.stop()


async def test_what_may_lose_jobs_is_told_once_at_the_start_and_in_readyz(
    careless: RedisServer, artifacts: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(ApiSettings(redis_url=careless.url, artifacts=artifacts, poll_seconds=0.02))
    transport = httpx.ASGITransport(app)
    with caplog.at_level(logging.WARNING):
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://localhost") as http,
        ):
            answers = [await http.get("/readyz") for _ in range(3)]
            assert (await http.head("/readyz")).status_code == 200
    first, eviction, file = answers[-1].text.splitlines()
    assert first == "ok"
    assert "allkeys-lru" in eviction
    assert "set it to noeviction" in eviction
    assert "set appendonly to yes" in file
    logged = [record.getMessage() for record in caplog.records]
    assert logged.count(eviction) == logged.count(file) == 1


def _start(url: str, folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "services.orchestrator.api", "--port=0", f"--redis-url={url}"]
    command += [f"--artifacts={folder.as_uri()}", *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_a_setting_makes_it_a_refusal(careless: RedisServer, tmp_path: Path) -> None:
    ended = _start(careless.url, tmp_path, "--redis-strict")
    assert ended.returncode == 2
    (sentence,) = ended.stderr.splitlines()
    assert "--redis-strict" in sentence
    assert "noeviction" in sentence
    assert "appendonly" in sentence


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[RedisServer]:
    options = ("--cluster-enabled", "yes")
    server = RedisServer(tmp_path, options=options)
    # Its nodes talk to each other on a port that is 10,000 higher.
    while server.port > 55_000:
        server = RedisServer(tmp_path, options=options)
    server.start()
    yield server
    server.stop()


async def test_a_cluster_is_refused_with_what_to_use(
    cluster: RedisServer, tmp_path: Path, artifacts: str
) -> None:
    ended = await asyncio.to_thread(_start, cluster.url, tmp_path)
    assert ended.returncode == 2
    (sentence,) = ended.stderr.splitlines()
    assert "is a cluster" in sentence
    assert "redis+sentinel://" in sentence
    # If such a Redis appears after the start, the service is not ready.
    app = create_app(ApiSettings(redis_url=cluster.url, artifacts=artifacts))
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://localhost") as http,
    ):
        answer = await http.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["detail"] in sentence


async def test_a_user_that_may_not_ask_for_info_is_served(
    careless: RedisServer, artifacts: str, caplog: pytest.LogCaptureFixture
) -> None:
    with Redis.from_url(careless.url) as redis:
        redis.execute_command(
            *["ACL", "SETUSER", "me", "on", ">secret", "~*", "&*", "+@all", "-@dangerous"]
        )
    url = careless.url.replace("redis://", "redis://me:secret@")
    app = create_app(ApiSettings(redis_url=url, artifacts=artifacts, poll_seconds=0.02))
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://localhost") as http,
    ):
        answer = await http.get("/readyz")
        await asyncio.sleep(0.1)
    assert (answer.status_code, answer.text) == (200, "ok")
    assert caplog.records == []


def test_a_redis_as_it_should_be_has_nothing_to_tell(redis_server: RedisServer) -> None:
    seen = first_look(redis_server.url)
    assert seen is not None
    assert seen.findings == []
    assert first_look("redis://127.0.0.1:1/0") is None


@pytest.mark.parametrize(
    ("info", "seconds", "said"),
    [
        ({"redis_version": "6.0.16"}, 0, "Redis 6.0.16 is older than 6.2"),
        ({"redis_version": "5.0.7"}, 0, "upgrade it"),
        ({}, 40.0, "40 s ahead of this machine's"),
        ({}, -40.0, "40 s behind this machine's"),
        ({"maxmemory_policy": "volatile-ttl"}, 0, "volatile-ttl"),
    ],
)
def test_each_finding_has_a_sentence_of_its_own(
    info: dict[str, object], seconds: float, said: str
) -> None:
    (finding,) = Look(PROMISED | info, seconds).findings
    assert said in finding


@pytest.mark.parametrize("version", ["6.2.0", "7.0.15", "10.0.1", "255.255.255", "unstable"])
def test_no_newer_redis_is_called_old(version: str) -> None:
    assert Look(PROMISED | {"redis_version": version}, 0.5).findings == []
