"""An API process that is told to stop while requests wait."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import httpx

from tests.orchestrator.api_process import api_process
from tests.orchestrator.conftest import SPEC
from tests.redis_server import RedisServer


async def test_a_request_that_waits_for_redis_is_told_to_ask_again(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    server.start()
    try:
        async with (
            api_process(server.url, tmp_path) as api,
            httpx.AsyncClient(base_url=api.url, timeout=30) as http,
        ):
            with server.frozen():
                waiting = asyncio.create_task(http.post("/v1/jobs", json=SPEC))
                await asyncio.sleep(0.5)
                assert not waiting.done()
                api.process.terminate()
                answer = await waiting
            assert answer.status_code == 503, answer.text
            assert answer.headers["content-type"] == "application/problem+json"
            assert int(answer.headers["retry-after"]) > 0
            assert answer.json()["title"] == "The server is stopping"
            # uvicorn takes the signal again at its end.
            assert await api.process.wait() in (0, -signal.SIGTERM)
    finally:
        server.stop()
