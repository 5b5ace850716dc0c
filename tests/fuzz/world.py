"""The API's surroundings while it is attacked: Redis, an artifact store, a worker, an ended job."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
from anyio.from_thread import start_blocking_portal

from dualprocess.schemas import Job
from dualprocess.v1 import generator_pb2_grpc, vlm_pb2_grpc
from services.orchestrator.api.app import create_app
from services.orchestrator.api.settings import ApiSettings
from services.orchestrator.store.artifacts import LORA_FILE
from services.orchestrator.store.keys import ApiKeys, Scope
from services.orchestrator.store.quotas import Quotas
from services.orchestrator.store.redis import connect
from services.orchestrator.worker.app import Worker
from services.orchestrator.worker.settings import WorkerSettings
from tests.orchestrator.conftest import SPEC, grpc_server
from tests.orchestrator.scripted import ScriptedGenerator, ScriptedVlm

#: The VLM of the document's examples that write.
WRITER = "qwen2.5-vl"
_PATIENCE_SECONDS = 60.0
_QUOTAS = Quotas(queued=10**6, running=10**6, steps=10_000, body_bytes=1 << 26)


@dataclass(frozen=True)
class World:
    """``key`` has all scopes of an owner, and the job belongs to it."""

    redis_url: str
    artifacts: str
    key: str
    job: Job
    artifact: str = LORA_FILE


@contextlib.contextmanager
def peopled(redis_url: str, folder: Path) -> Iterator[World]:
    """A world in an empty Redis, with a worker on a thread of its own."""
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(_peopled(redis_url, folder)) as world,
    ):
        yield world


@contextlib.asynccontextmanager
async def _peopled(redis_url: str, folder: Path) -> AsyncIterator[World]:
    artifacts = (folder / "artifacts").as_uri()
    redis = connect(redis_url, retries=1)
    await redis.flushdb()
    key = await ApiKeys(redis).create("a fuzzer's", {Scope.SUBMIT, Scope.READ}, _QUOTAS)
    await redis.aclose()
    async with _worked(redis_url, artifacts):
        yield World(redis_url, artifacts, key, await _ended_job(redis_url, artifacts, key))


@contextlib.asynccontextmanager
async def _worked(redis_url: str, artifacts: str) -> AsyncIterator[None]:
    """Jobs of the tiny pair end soon: their generator and VLM follow a script."""
    generator = ScriptedGenerator()
    vlm = ScriptedVlm()  # type: ignore[abstract]  # teaches nobody
    vlm.reply = '{"restated": "Is it a fox?", "prompt": "a red fox"}'
    async with (
        grpc_server(
            lambda s: generator_pb2_grpc.add_GeneratorServicer_to_server(generator, s)
        ) as generator_target,
        grpc_server(lambda s: vlm_pb2_grpc.add_VlmServicer_to_server(vlm, s)) as vlm_target,
    ):
        worker = Worker(
            WorkerSettings(
                redis_url=redis_url,
                artifacts=artifacts,
                generator=generator_target,
                vlms={SPEC["vlm"]: vlm_target, WRITER: vlm_target},
                poll_seconds=0.05,
            )
        )
        working = asyncio.create_task(worker.run())
        try:
            yield
        finally:
            worker.stop()
            await working


async def _ended_job(redis_url: str, artifacts: str, key: str) -> Job:
    app = create_app(ApiSettings(redis_url=redis_url, artifacts=artifacts, auth=True))
    headers = {"Authorization": f"Bearer {key}"}
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=transport, base_url="http://localhost", headers=headers
        ) as http,
        asyncio.timeout(_PATIENCE_SECONDS),
    ):
        answer = await http.post("/v1/jobs", json=SPEC)
        job = Job.model_validate_json(answer.content)
        while not job.status.is_final:
            await asyncio.sleep(0.05)
            job = Job.model_validate_json((await http.get(f"/v1/jobs/{job.id}")).content)
    return job
