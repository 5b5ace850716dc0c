"""The stack for chaos: two of everything except Redis, all children of this process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from services.local import own_redis
from services.local.child import ChildSpec
from services.local.ports import free_port
from services.local.probes import answers, serves
from services.local.supervisor import Supervisor

GENERATOR, VLM = "tiny-flux", "tiny-idefics2"
#: Short, so that a stop can be longer.
LEASE_SECONDS = 4.0
#: The attempts of a job. Chaos ends more than the default of three, and never by the job's fault.
ATTEMPTS = 50
_START_SECONDS = 240.0
_REPLICAS = (1, 2)


class Kind(StrEnum):
    REDIS = "redis"
    VLM = "vlm"
    GENERATOR = "generator"
    API = "api"
    WORKER = "worker"


@dataclass(frozen=True)
class Part:
    """A process of the stack; ``mark`` is in no other command line. While the file ``sick`` exists,
    the process's device has the fault that it names."""

    kind: Kind
    mark: str
    spec: ChildSpec
    sick: Path | None = None

    def process(self) -> psutil.Process | None:
        """The process that runs now; ``None`` between two."""
        for process in psutil.Process().children():
            with contextlib.suppress(psutil.Error):
                if self.mark in " ".join(process.cmdline()):
                    return process
        return None


@dataclass(frozen=True)
class Stack:
    """The stack's addresses and parts."""

    redis_url: str
    api_urls: Sequence[str]
    parts: Sequence[Part]

    def of(self, kind: Kind) -> list[Part]:
        return [part for part in self.parts if part.kind == kind]


def build(folder: Path) -> Stack:
    """The stack's processes, in the order of their start. Ports stay the same after restarts."""
    redis = own_redis.build(folder / "redis")
    redis_port = urlsplit(redis.url).port
    store = {
        "DUALPROCESS_REDIS_URL": redis.url,
        "DUALPROCESS_ARTIFACTS": (folder / "artifacts").as_uri(),
    }
    token = {"DUALPROCESS_GRPC_TOKEN": secrets.token_hex(32)}
    # Redis writes this over its command line.
    parts = [Part(Kind.REDIS, f"redis-server 127.0.0.1:{redis_port}", redis.spec)]
    ports = {kind: [free_port() for _ in _REPLICAS] for kind in (Kind.VLM, Kind.GENERATOR)}
    for kind, preset in ((Kind.VLM, VLM), (Kind.GENERATOR, GENERATOR)):
        for replica, port in zip(_REPLICAS, ports[kind], strict=True):
            sick = folder / f"{kind}-{replica}-is-sick"
            parts.append(_gpu_service(kind, replica, port, preset, sick, token))
    vlms = "ipv4:" + ",".join(f"127.0.0.1:{port}" for port in ports[Kind.VLM])
    urls = []
    for replica in _REPLICAS:
        port = free_port()
        urls.append(f"http://127.0.0.1:{port}")
        parts.append(_api(replica, port, urls[-1], store))
    for replica, port in zip(_REPLICAS, ports[Kind.GENERATOR], strict=True):
        flags = [f"--generator=127.0.0.1:{port}", f"--vlms={json.dumps({VLM: vlms})}"]
        parts.append(_worker(replica, flags, f"{urls[0]}/readyz?worker=true", {**store, **token}))
    return Stack(redis.url, urls, parts)


@contextlib.asynccontextmanager
async def running(stack: Stack, logs: Path) -> AsyncIterator[None]:
    """The stack, when it is ready. Each process that dies is started again, however often."""
    supervisor = Supervisor(
        [part.spec for part in stack.parts], logs, lambda name, line: None, quick_seconds=0.0
    )
    try:
        async with asyncio.timeout(_START_SECONDS):
            await supervisor.start()
        yield
    finally:
        await supervisor.stop()


def _gpu_service(
    kind: Kind, replica: int, port: int, preset: str, sick: Path, token: Mapping[str, str]
) -> Part:
    flags = [f"--preset={preset}", "--device=cpu", "--host=127.0.0.1"]
    part = _python(
        kind,
        replica,
        "tests.sick_service",
        [str(sick), f"services.{kind}", *flags],
        mark=f"--port={port}",
        ready=lambda: serves(f"127.0.0.1:{port}"),
        environment=token,
    )
    return replace(part, sick=sick)


def _api(replica: int, port: int, url: str, store: Mapping[str, str]) -> Part:
    return _python(
        Kind.API,
        replica,
        "services.orchestrator.api",
        ["--host=127.0.0.1"],
        mark=f"--port={port}",
        ready=lambda: answers(f"{url}/readyz"),
        environment=store,
    )


def _worker(replica: int, flags: Sequence[str], ready: str, environment: Mapping[str, str]) -> Part:
    patience = [f"--attempts={ATTEMPTS}", "--pause-seconds=0.05"]
    return _python(
        Kind.WORKER,
        replica,
        "services.orchestrator.worker",
        [*flags, *patience, f"--lease-seconds={LEASE_SECONDS:g}"],
        mark=f"--name=chaos-{replica}",
        ready=lambda: answers(ready),
        environment=environment,
    )


def _python(
    kind: Kind,
    replica: int,
    module: str,
    flags: Sequence[str],
    *,
    mark: str,
    ready: Callable[[], Awaitable[bool]],
    environment: Mapping[str, str] | None = None,
) -> Part:
    command = [sys.executable, "-m", module, *flags, mark]
    return Part(kind, mark, ChildSpec(f"{kind}-{replica}", command, ready, environment or {}))
