"""The processes of one machine: Redis, GPU services, API, and a worker for each generator."""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence

from services.local import metrics_ports, own_redis, private
from services.local.child import ChildSpec
from services.local.plan import ORDER, VISIBLE, Placed, Plan
from services.local.planned import flags, worker_of
from services.local.ports import free_ports
from services.local.probes import answers, serves
from services.local.settings import LocalSettings


def build(settings: LocalSettings, plan: Plan) -> list[ChildSpec]:
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
    services = [*plan.vlms, *plan.generators]
    names = [place.name for place in services]
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    store = [f"--artifacts={settings.artifacts_url}"]
    # Under every name that is read, so that no variable of this process is used instead.
    redis_names = {"DUALPROCESS_REDIS_URL": redis_url, "REDIS_URL": redis_url}
    # Other users of this machine can reach loopback, too.
    token = {"DUALPROCESS_GRPC_TOKEN": secrets.token_hex(32)}
    children += [_gpu_service(settings, place, ports[place.name], token) for place in services]
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
    vlms = json.dumps({**_targets(plan.vlms, ports), **plan.teachers})
    children += [
        _python(
            settings,
            worker_of(place),
            "services.orchestrator.worker",
            [
                *store,
                f"--generator=127.0.0.1:{ports[place.name]}",
                f"--vlms={vlms}",
                f"--slots={settings.slots}",
            ],
            ready=lambda: answers(f"{settings.url}/readyz?worker=true"),
            waits_for="a worker that reports",
            environment={**token, **redis_names},
        )
        for place in plan.generators
    ]
    return metrics_ports.told(settings, children)


def _targets(vlms: Sequence[Placed], ports: Mapping[str, int]) -> dict[str, str]:
    """The gRPC target of each preset: all VLMs that serve it."""
    places: dict[str, list[str]] = {}
    for vlm in vlms:
        places.setdefault(vlm.preset, []).append(f"127.0.0.1:{ports[vlm.name]}")
    return {
        preset: found[0] if len(found) == 1 else f"ipv4:{','.join(found)}"
        for preset, found in places.items()
    }


def _doors(settings: LocalSettings) -> list[str]:
    chosen = {"--auth": settings.auth, "--insecure": settings.insecure}
    page = "--ui" if settings.ui else "--no-ui"
    return [page, *(flag for flag, is_set in chosen.items() if is_set)]


def _gpu_service(
    settings: LocalSettings, place: Placed, port: int, token: Mapping[str, str]
) -> ChildSpec:
    arguments = [f"--preset={place.preset}", f"--device={place.device}"]
    # The host is a flag, since DUALPROCESS_HOST in the environment is meant for the API.
    arguments += ["--host=127.0.0.1", f"--port={port}", *flags(place)]
    return _python(
        settings,
        place.name,
        f"services.{place.service}",
        arguments,
        ready=lambda: serves(f"127.0.0.1:{port}"),
        waits_for=f"{place.preset} to be loaded, after a download if its weights are not here yet",
        ready_seconds=settings.load_seconds,
        # It sees only its own cards, also after a restart.
        environment={**token, **({VISIBLE: ",".join(place.cards), **ORDER} if place.cards else {})},
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
