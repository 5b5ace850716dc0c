"""A Redis that accepts no writes: clients are asked to try again later."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import httpx
import pytest

from services.orchestrator.store.redis import Client
from tests.orchestrator.conftest import SPEC, Api, on_each_redis

pytestmark = on_each_redis


@contextlib.asynccontextmanager
async def full(redis: Client) -> AsyncIterator[None]:
    await redis.config_set("maxmemory", 1)
    try:
        yield
    finally:
        await redis.config_set("maxmemory", 0)


@contextlib.asynccontextmanager
async def replica(redis: Client) -> AsyncIterator[None]:
    await redis.replicaof("127.0.0.1", "1")
    try:
        yield
    finally:
        await redis.replicaof("NO", "ONE")


@contextlib.asynccontextmanager
async def not_saving(redis: Client) -> AsyncIterator[None]:
    """Its last snapshot failed: a folder lies where the file should."""
    where = Path((await redis.config_get("dir"))["dir"]) / "dump.rdb"
    where.mkdir()
    await redis.config_set("save", "3600 1")
    await _snapshot(redis, "err")
    try:
        yield
    finally:
        where.rmdir()
        await redis.config_set("save", "")
        await _snapshot(redis, "ok")


async def _snapshot(redis: Client, wanted: str) -> None:
    await redis.bgsave()
    async with asyncio.timeout(10):
        while (await redis.info("persistence"))["rdb_last_bgsave_status"] != wanted:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def assert_asked_back(answer: httpx.Response) -> None:
    assert (answer.status_code, answer.headers.get("retry-after")) == (503, "2"), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["title"] == "Redis takes no writes"


@pytest.mark.parametrize("state", [full, replica, not_saving])
async def test_a_submission_comes_back(
    api: Api, redis: Client, state: Callable[[Client], AbstractAsyncContextManager[None]]
) -> None:
    async with state(redis):
        assert_asked_back(await api.http.post("/v1/jobs", json=SPEC))
        assert_asked_back(await api.http.post("/v1/batches", json={"specs": [SPEC]}))
    await api.submit()
