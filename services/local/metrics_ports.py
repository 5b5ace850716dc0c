"""Where the processes of a stack show their metrics, and the list of that for Prometheus."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from services.common.addresses import host_port
from services.local import private
from services.local.child import ChildSpec
from services.local.ports import free_port
from services.local.settings import LocalSettings

#: Those that show them on a port of their own; the API does it at /metrics.
_MODULES = ("services.vlm", "services.generator", "services.orchestrator.worker")


def told(settings: LocalSettings, children: Sequence[ChildSpec]) -> list[ChildSpec]:
    """The children with a port each where ``--metrics`` is given; then the list is written too."""
    # A port of the environment can be one process's only.
    flags = [_flags(child) if settings.metrics else [] for child in children]
    if settings.metrics:
        _write(settings, children, flags)
    else:
        forget(settings.metrics_targets)
    return [
        replace(
            child,
            command=[*child.command, *own],
            environment={**child.environment, "DUALPROCESS_METRICS_PORT": ""},
        )
        for child, own in zip(children, flags, strict=True)
    ]


def forget(targets: Path) -> None:
    """From now on Prometheus finds nothing there."""
    targets.unlink(missing_ok=True)


def _flags(child: ChildSpec) -> list[str]:
    if not any(module in child.command for module in _MODULES):
        return []
    return ["--metrics-host=127.0.0.1", f"--metrics-port={free_port()}"]


def _write(
    settings: LocalSettings, children: Sequence[ChildSpec], flags: Sequence[Sequence[str]]
) -> None:
    listed = [_target(host_port(settings.host, settings.port), "api")]
    for child, own in zip(children, flags, strict=True):
        if own:
            listed.append(_target(f"127.0.0.1:{own[-1].partition('=')[2]}", child.name))
    private.make_folder(settings.metrics_targets.parent)
    private.write_file(settings.metrics_targets, json.dumps(listed, indent=1) + "\n")


def _target(address: str, name: str) -> dict[str, object]:
    return {"targets": [address], "labels": {"process": name}}
