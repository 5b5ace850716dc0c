"""Redis behind sentinels: the master dies while jobs run, and no job is harmed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from dualprocess.schemas import JobStatus
from services.orchestrator.api.app import create_app
from services.orchestrator.api.settings import ApiSettings
from tests.orchestrator.conftest import Api, Site
from tests.orchestrator.scripted import ScriptedGenerator
from tests.sentinels import Watched, watched


@pytest.fixture
def sentinels(tmp_path: Path) -> Iterator[Watched]:
    with watched(tmp_path) as site:
        yield site


async def test_a_failover_in_the_midst_of_jobs_loses_none(
    sentinels: Watched,
    site: Site,
    generator: ScriptedGenerator,
    artifacts: str,
    record_property: Callable[[str, object], None],
) -> None:
    app = create_app(ApiSettings(redis_url=sentinels.url, artifacts=artifacts))
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://localhost") as http,
    ):
        api = Api(http)
        generator.go.clear()
        site.start_worker(redis_url=sentinels.url, slots=2)
        jobs = [await api.submit() for _ in range(3)]
        for job in jobs[:2]:
            await api.until(job.id, lambda job: job.step == 1)
        await asyncio.to_thread(sentinels.fail_over)
        generator.go.set()
        later = await api.submit()
        ends = [await api.ended(job.id) for job in [*jobs, later]]
        record_property("jobs lost", sum(job.status != JobStatus.SUCCEEDED for job in ends))
        record_property("attempts", "/".join(str(job.attempt) for job in ends))
        for ended in ends:
            assert (ended.status, ended.attempt, ended.causes) == (JobStatus.SUCCEEDED, 1, [])
        events = (await api.events(jobs[0].id)).text
        assert events.count('"succeeded"') == 1
