"""An API process that is told to stop while requests wait."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import httpx

from services.local.ports import free_port
from tests.orchestrator.conftest import SPEC
from tests.redis_server import RedisServer


async def test_a_request_that_waits_for_redis_is_told_to_ask_again(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    server.start()
    url = f"http://127.0.0.1:{(port := free_port())}"
    flags = [f"--port={port}", f"--redis-url={server.url}", f"--artifacts={tmp_path.as_uri()}"]
    command = [sys.executable, "-m", "services.orchestrator.api", *flags]
    process = await asyncio.create_subprocess_exec(*command)
    try:
        async with httpx.AsyncClient(base_url=url, timeout=30) as http:
            await _ready(http)
            with server.frozen():
                waiting = asyncio.create_task(http.post("/v1/jobs", json=SPEC))
                await asyncio.sleep(0.5)
                assert not waiting.done()
                process.terminate()
                answer = await waiting
        assert answer.status_code == 503, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        assert int(answer.headers["retry-after"]) > 0
        assert answer.json()["title"] == "The server is stopping"
        # uvicorn takes the signal again at its end.
        assert await process.wait() in (0, -signal.SIGTERM)
    finally:
        if process.returncode is None:
            process.kill()
        server.stop()


async def _ready(http: httpx.AsyncClient) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                if (await http.get("/readyz")).is_success:
                    return
            except httpx.ConnectError:
                pass
            await asyncio.sleep(0.1)
