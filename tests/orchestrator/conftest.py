from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from fastapi import FastAPI

from dualprocess.schemas import Job
from dualprocess.v1 import generator_pb2_grpc, vlm_pb2_grpc
from services.orchestrator.api.app import create_app
from services.orchestrator.api.settings import ApiSettings
from services.orchestrator.store.keys import ApiKeys, Scope
from services.orchestrator.store.quotas import Quotas
from services.orchestrator.store.redis import Client, connect
from services.orchestrator.worker.app import Worker
from services.orchestrator.worker.settings import WorkerSettings
from tests.orchestrator.scripted import ScriptedGenerator, ScriptedVlm
from tests.redis_server import INSTALLED, WHEEL, RedisServer

SPEC: dict[str, Any] = {
    "prompt": "a circle",
    "questions": [{"question": "Is the circle red?", "answer": "Yes"}],
    "generator": "tiny-flux",
    "vlm": "tiny-idefics2",
    "optimizer": {"steps": 3},
    "eval": {"images": 2},
}

#: The header that says that no web page sent a request. Without keys, changes need it.
ASKED = {"X-Requested-With": "a test"}
#: Seconds. What a test waits for comes at once, or never.
LONGEST_WAIT = 15.0
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that takes this long hangs. Until ``LONGEST_WAIT`` it reports itself what is
    missing."""
    for item in items:
        if item.path.is_relative_to(HERE) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(4 * LONGEST_WAIT))


#: For a module whose tests must pass on Redis 6.2 and on a newer one.
on_each_redis = pytest.mark.parametrize(
    "redis_server",
    [
        pytest.param(WHEEL, id="redis-6.2"),
        pytest.param(
            INSTALLED,
            id="redis-installed",
            marks=pytest.mark.skipif(INSTALLED is None, reason="needs redis-server on the PATH"),
        ),
    ],
    indirect=True,
)


@pytest.fixture(scope="session")
def redis_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RedisServer]:
    executable = getattr(request, "param", INSTALLED or WHEEL)
    server = RedisServer(tmp_path_factory.mktemp("redis"), executable)
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def redis(redis_server: RedisServer) -> AsyncIterator[Client]:
    client = connect(redis_server.url, retries=1)
    await client.flushdb()
    yield client
    await client.aclose()


@dataclass(frozen=True)
class Api:
    """The REST API as its users see it."""

    http: httpx.AsyncClient

    async def submit(self, **changes: Any) -> Job:
        answer = await self.http.post("/v1/jobs", json=SPEC | changes)
        assert answer.status_code == 202, answer.text
        return Job.model_validate_json(answer.content)

    async def job(self, job_id: str) -> Job:
        return Job.model_validate_json((await self.http.get(f"/v1/jobs/{job_id}")).content)

    async def until(self, job_id: str, wanted: Callable[[Job], object]) -> Job:
        """The job, when the condition holds."""
        loop = asyncio.get_running_loop()
        end = loop.time() + LONGEST_WAIT
        while not wanted(job := await self.job(job_id)):
            if loop.time() > end:
                pytest.fail(
                    f"after {LONGEST_WAIT:g} s the job is not as wanted: {job.status}, "
                    f"attempt {job.attempt}, step {job.step}, waits for {job.waiting_for}, "
                    f"error {job.error}"
                )
            await asyncio.sleep(0.03)
        return job

    async def ended(self, job_id: str) -> Job:
        return await self.until(job_id, lambda job: job.status.is_final)

    async def until_live(self, workers: int) -> None:
        """Waits until this many workers report."""
        end = asyncio.get_running_loop().time() + LONGEST_WAIT
        while (
            f"dualprocess_workers_live {workers:.1f}" not in (await self.http.get("/metrics")).text
        ):
            assert asyncio.get_running_loop().time() < end, f"there are no {workers} live workers"
            await asyncio.sleep(0.03)

    async def events(self, job_id: str, behind: str | None = None) -> httpx.Response:
        """The stream of its events behind one, up to the end of the job."""
        headers = {} if behind is None else {"Last-Event-ID": behind}
        stream = self.http.get(f"/v1/jobs/{job_id}/events", headers=headers)
        try:
            return await asyncio.wait_for(stream, LONGEST_WAIT)
        except TimeoutError:
            pytest.fail(f"after {LONGEST_WAIT:g} s the stream of the job's events has not ended")


@pytest.fixture
def artifacts(tmp_path: Path) -> str:
    return (tmp_path / "artifacts").as_uri()


@pytest.fixture
async def api(redis: Client, redis_server: RedisServer, artifacts: str) -> AsyncIterator[Api]:
    settings = ApiSettings(redis_url=redis_server.url, artifacts=artifacts, body_limit=1 << 20)
    app = create_app(settings)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=ASKED) as http,
    ):
        yield Api(http)


@dataclass(frozen=True)
class Guarded:
    """The REST API of a service with keys."""

    app: FastAPI
    keys: ApiKeys

    def with_key(self, key: str | None) -> Api:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        transport = httpx.ASGITransport(self.app)
        return Api(
            httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=headers)
        )

    async def key(self, *scopes: str, **quotas: int) -> str:
        """A new key; with scopes to submit and read if none are named."""
        limits = Quotas.model_validate(QUOTAS | quotas)
        return await self.keys.create("a test's", {Scope(s) for s in scopes or OWN}, limits)

    async def owner(self, *scopes: str, **quotas: int) -> Api:
        """The API with a new key."""
        return self.with_key(await self.key(*scopes, **quotas))


OWN = ("submit", "read")
QUOTAS = {"queued": 100, "running": 100, "steps": 10_000, "body_bytes": 1 << 20}


@pytest.fixture
async def guarded(
    redis: Client, redis_server: RedisServer, artifacts: str
) -> AsyncIterator[Guarded]:
    settings = ApiSettings(redis_url=redis_server.url, artifacts=artifacts, auth=True)
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        yield Guarded(app, ApiKeys(redis))


@contextlib.asynccontextmanager
async def grpc_server(register: Callable[[grpc.aio.Server], None]) -> AsyncIterator[str]:
    server = grpc.aio.server()
    register(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)


@pytest.fixture
def generator() -> ScriptedGenerator:
    return ScriptedGenerator()


@pytest.fixture
def vlm() -> ScriptedVlm:
    return ScriptedVlm()  # type: ignore[abstract]  # teaches nobody


@dataclass
class Site:
    """A place for workers: one generator, one VLM."""

    settings: WorkerSettings
    workers: dict[Worker, asyncio.Task[None]]

    def start_worker(self, **changes: Any) -> Worker:
        worker = Worker(self.settings.model_copy(update=changes))
        self.workers[worker] = asyncio.create_task(worker.run())
        return worker

    async def stop(self, worker: Worker) -> None:
        """Returns when it has given its jobs back. One that never does is cancelled."""
        worker.stop()
        try:
            async with asyncio.timeout(LONGEST_WAIT):
                await self.workers.pop(worker)
        except TimeoutError:
            pytest.fail(f"the worker did not stop within {LONGEST_WAIT:g} s")


@pytest.fixture
async def site(
    redis_server: RedisServer, artifacts: str, generator: ScriptedGenerator, vlm: ScriptedVlm
) -> AsyncIterator[Site]:
    async with (
        grpc_server(
            lambda s: generator_pb2_grpc.add_GeneratorServicer_to_server(generator, s)
        ) as generator_target,
        grpc_server(lambda s: vlm_pb2_grpc.add_VlmServicer_to_server(vlm, s)) as vlm_target,
    ):
        settings = WorkerSettings(
            redis_url=redis_server.url,
            artifacts=artifacts,
            generator=generator_target,
            vlms={"tiny-idefics2": vlm_target},
            poll_seconds=0.05,
            pause_seconds=0.02,
        )
        site = Site(settings, {})
        yield site
        for worker in list(site.workers):
            await site.stop(worker)
