"""The server under load: one API process and a real Redis with AOF."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from services.local import own_redis
from services.local.child import ChildSpec
from services.local.ports import free_port
from services.local.probes import answers
from services.local.supervisor import Supervisor

_API = "services.orchestrator.api"
_MB = 1e6


@dataclass(frozen=True)
class Server:
    url: str
    redis_url: str

    def memory_mb(self) -> float:
        """Resident memory of the API process, in 10^6 bytes."""
        for process in psutil.Process().children():
            if _API in process.cmdline():
                resident: int = process.memory_info().rss
                return resident / _MB
        raise RuntimeError("the API process is gone")


@contextlib.asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[Server]:
    """A server that is ready, with all its data in ``folder``."""
    redis, port = own_redis.build(folder / "redis"), free_port()
    server = Server(f"http://127.0.0.1:{port}", redis.url)
    flags = [
        "--host=127.0.0.1",
        f"--port={port}",
        f"--artifacts={(folder / 'artifacts').as_uri()}",
    ]
    api = ChildSpec(
        "api",
        [sys.executable, "-m", _API, *flags],
        lambda: answers(f"{server.url}/readyz"),
        {"DUALPROCESS_REDIS_URL": redis.url},
    )
    supervisor = Supervisor([redis.spec, api], folder / "logs", _silent)
    try:
        await supervisor.start()
        yield server
    finally:
        await supervisor.stop()


def _silent(*_: str) -> None:
    """Prints nothing, since the log files have all lines."""
