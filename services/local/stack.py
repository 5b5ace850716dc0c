"""The processes of one machine: Redis, VLMs, generators, API, and a worker for each generator."""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Awaitable, Callable, Collection, Mapping

from services.local import metrics_ports, own_redis, private
from services.local.child import ChildSpec
from services.local.models import Models
from services.local.ports import free_port
from services.local.probes import answers, serves
from services.local.settings import LocalSettings


def build(settings: LocalSettings, models: Models) -> list[ChildSpec]:
    """The processes to start, in order. Ports are chosen here, and stay the same when a process is
    restarted."""
    children = []
    redis_url = settings.redis_url
    if redis_url is None:
        own = own_redis.build(settings.redis_folder)
        redis_url = own.url
        children.append(own.spec)
    else:
        own_redis.forget(settings.redis_folder)
    vlm_ports = {name: free_port() for name in models.vlms}
    generator_ports = {name: free_port() for name in models.generators}
    store = [f"--artifacts={settings.artifacts_url}"]
    # Under every name that is read, so that no variable of this process is used instead.
    redis_names = {"DUALPROCESS_REDIS_URL": redis_url, "REDIS_URL": redis_url}
    # Other users of this machine can reach loopback, too.
    token = {"DUALPROCESS_GRPC_TOKEN": secrets.token_hex(32)}
    for service, ports in (("vlm", vlm_ports), ("generator", generator_ports)):
        children += [
            _gpu_service(settings, service, _named(service, preset, ports), preset, port, token)
            for preset, port in ports.items()
        ]
    children.append(
        _python(
            settings,
            "api",
            "services.orchestrator.api",
            [f"--host={settings.host}", f"--port={settings.port}", *_doors(settings), *store],
            ready=lambda: answers(f"{settings.url}/readyz"),
            waits_for=f"an answer from {settings.url}/readyz",
            environment=redis_names,
        )
    )
    vlms = json.dumps({name: f"127.0.0.1:{port}" for name, port in vlm_ports.items()})
    children += [
        _python(
            settings,
            _named("worker", generator, generator_ports),
            "services.orchestrator.worker",
            [
                *store,
                f"--generator=127.0.0.1:{port}",
                f"--vlms={vlms}",
                f"--slots={settings.slots}",
            ],
            ready=lambda: answers(f"{settings.url}/readyz?worker=true"),
            waits_for="a worker that reports",
            environment={**token, **redis_names},
        )
        for generator, port in generator_ports.items()
    ]
    return metrics_ports.told(settings, children)


def _named(service: str, preset: str, all_of_them: Collection[str]) -> str:
    """The child's name: that of its service, if there is only one of it."""
    return service if len(all_of_them) == 1 else f"{service}-{preset}"


def _doors(settings: LocalSettings) -> list[str]:
    chosen = {"--auth": settings.auth, "--insecure": settings.insecure}
    page = "--ui" if settings.ui else "--no-ui"
    return [page, *(flag for flag, is_set in chosen.items() if is_set)]


def _gpu_service(
    settings: LocalSettings,
    service: str,
    name: str,
    preset: str,
    port: int,
    token: Mapping[str, str],
) -> ChildSpec:
    arguments = [f"--preset={preset}", f"--device={settings.device}"]
    # The host is a flag, since DUALPROCESS_HOST in the environment is meant for the API.
    arguments += ["--host=127.0.0.1", f"--port={port}"]
    return _python(
        settings,
        name,
        f"services.{service}",
        arguments,
        ready=lambda: serves(f"127.0.0.1:{port}"),
        waits_for=f"{preset} to be loaded, after a download if its weights are not here yet",
        ready_seconds=settings.load_seconds,
        environment=token,
        # Others may read the weights that it downloads.
        umask=ChildSpec.umask,
    )


def _python(
    settings: LocalSettings,
    name: str,
    module: str,
    arguments: list[str],
    *,
    ready: Callable[[], Awaitable[bool]],
    waits_for: str,
    ready_seconds: float = ChildSpec.ready_seconds,
    environment: Mapping[str, str] | None = None,
    umask: int = private.UMASK,
) -> ChildSpec:
    common = [f"--presets={settings.presets}", f"--log-level={settings.log_level}"]
    common.append(f"--log-format={settings.log_format}")
    command = [sys.executable, "-m", module, *arguments, *common]
    return ChildSpec(name, command, ready, environment or {}, waits_for, ready_seconds, umask)
