"""The API as a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from services.local.ports import free_port


@dataclass(frozen=True)
class ApiProcess:
    process: Process
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextlib.asynccontextmanager
async def api_process(
    redis_url: str, artifacts: Path | str, *more: str
) -> AsyncIterator[ApiProcess]:
    """Ready; killed at the end, if it still runs. ``artifacts`` is a folder or an address."""
    port = free_port()
    store = artifacts if isinstance(artifacts, str) else artifacts.as_uri()
    flags = [f"--port={port}", f"--redis-url={redis_url}", f"--artifacts={store}"]
    command = [sys.executable, "-m", "services.orchestrator.api", *flags, *more]
    process = await asyncio.create_subprocess_exec(*command)
    api = ApiProcess(process, port)
    try:
        await _ready(api.url)
        yield api
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _ready(url: str) -> None:
    async with asyncio.timeout(30), httpx.AsyncClient(base_url=url) as http:
        while True:
            with contextlib.suppress(httpx.ConnectError):
                if (await http.get("/readyz")).is_success:
                    return
            await asyncio.sleep(0.1)
