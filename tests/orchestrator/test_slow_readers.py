"""Event streams that nobody reads cost the API no memory, and lose nothing."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path

import httpx
import psutil
import pytest

from dualprocess.schemas import Job, JobStatus, StatusEvent
from services.orchestrator.store.redis import Client, events_key
from tests.orchestrator.api_process import ApiProcess, api_process
from tests.orchestrator.conftest import ASKED, SPEC
from tests.redis_server import RedisServer

#: Of 4 kB each: more than the kernel's buffers take.
_EVENTS = 4000
_READERS = 5
_WARM_UP = 1000
#: Of 5 readers' 80 MB.
_MOST_BYTES = 15e6

pytestmark = pytest.mark.timeout(150)


async def test_readers_that_stand_still_cost_no_memory(
    redis_server: RedisServer, redis: Client, tmp_path: Path
) -> None:
    async with (
        api_process(redis_server.url, tmp_path) as api,
        httpx.AsyncClient(base_url=api.url, timeout=60, headers=ASKED) as http,
    ):
        job = Job.model_validate_json((await http.post("/v1/jobs", json=SPEC)).content)
        with contextlib.ExitStack() as slow:
            # One reader warms up what is loaded and cached once.
            await _fill(redis, job.id, _WARM_UP)
            slow.enter_context(_open(api, job.id))
            before = await _memory_at_rest(api)
            await _fill(redis, job.id, _EVENTS)
            readers = [slow.enter_context(_open(api, job.id)) for _ in range(_READERS)]
            assert await _memory_at_rest(api) - before < _MOST_BYTES
            await http.post(f"/v1/jobs/{job.id}/cancel")
            heard = await asyncio.to_thread(_read, readers[-1])
        # Queued, those that filled it, cancelled.
        assert heard.count(b"\nid: ") == 1 + _WARM_UP + _EVENTS + 1


async def _fill(redis: Client, job_id: str, count: int) -> None:
    event = StatusEvent(status=JobStatus.QUEUED, waiting_for="someone who reads " * 225)
    async with redis.pipeline(transaction=False) as pipe:
        for _ in range(count):
            pipe.xadd(events_key(job_id), {"event": event.model_dump_json()})
        await pipe.execute()


def _open(api: ApiProcess, job_id: str) -> socket.socket:
    """A stream that has begun, of which nothing more is read."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
    connection.settimeout(30)
    connection.connect(("127.0.0.1", api.port))
    request = (
        f"GET /v1/jobs/{job_id}/events HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    connection.sendall(request.encode())
    assert connection.recv(12) == b"HTTP/1.1 200"
    return connection


def _read(connection: socket.socket) -> bytes:
    whole = b""
    while part := connection.recv(1 << 16):
        whole += part
    return whole


async def _memory_at_rest(api: ApiProcess) -> float:
    """Once the process has nothing more to do."""
    process = psutil.Process(api.process.pid)
    async with asyncio.timeout(60):
        while True:
            before = process.cpu_times()
            await asyncio.sleep(1)
            after = process.cpu_times()
            if after.user + after.system - before.user - before.system < 0.1:
                resident: float = process.memory_info().rss
                return resident
