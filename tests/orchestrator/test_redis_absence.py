"""Redis is away for longer than any client tries."""

from __future__ import annotations

import asyncio

import pytest
import redis.asyncio.retry

from dualprocess.schemas import JobStatus
from tests.orchestrator.conftest import Api, Site
from tests.orchestrator.scripted import ScriptedGenerator
from tests.redis_server import RedisServer


@pytest.fixture
def tries(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between tries so far. Minutes of pauses pass in a moment."""
    pauses: list[float] = []

    async def brief(seconds: float) -> None:
        pauses.append(seconds)
        await asyncio.sleep(0.001)

    monkeypatch.setattr(redis.asyncio.retry, "sleep", brief)
    return pauses


async def test_an_absence_of_minutes_costs_a_running_job_no_attempt(
    api: Api,
    site: Site,
    generator: ScriptedGenerator,
    redis_server: RedisServer,
    tries: list[float],
) -> None:
    generator.go.clear()
    site.start_worker()
    job = await api.submit()
    await api.until(job.id, lambda job: job.step == 1)
    redis_server.stop()
    try:
        generator.go.set()
        async with asyncio.timeout(30):
            while sum(tries) < 2000:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    finally:
        redis_server.start()
    job = await api.ended(job.id)
    assert (job.status, job.attempt, job.causes) == (JobStatus.SUCCEEDED, 1, [])
    steps = (await api.events(job.id)).text.count("event: step")
    assert steps == 3, "what it had to say, it said"


async def test_a_worker_ends_though_redis_is_away(
    api: Api,
    site: Site,
    generator: ScriptedGenerator,
    redis_server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("services.orchestrator.worker.app._END_SECONDS", 0.5)
    generator.go.clear()
    worker = site.start_worker()
    job = await api.submit()
    await api.until(job.id, lambda job: job.step == 1)
    redis_server.stop()
    try:
        async with asyncio.timeout(20):
            await site.stop(worker)
    finally:
        redis_server.start()
