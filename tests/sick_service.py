"""A GPU service whose device falls sick when a test says so.

``python -m tests.sick_service FILE services.generator --preset …`` is ``python -m
services.generator --preset …``, but while FILE is there its device does no work: it breaks as
FILE's text says. A process that starts meanwhile has the same device.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.common.imports import import_first

with import_first():
    from services.common.device import DeviceThread
    from services.common.self_test import SelfTest

#: What CUDA says when it is over.
CUDA = "CUDA error: an illegal memory access was encountered"
#: Anything else; the self-test passes.
ODD = "the device did something odd"


def fall_sick(file: Path, fault: str) -> None:
    """Whoever was started with this file, from now on."""
    file.write_text(fault, encoding="utf-8")


def get_well(file: Path) -> None:
    file.unlink(missing_ok=True)
    _met(file).unlink(missing_ok=True)


def was_met(file: Path) -> bool:
    """Whether the device has failed anybody since it fell sick."""
    return _met(file).exists()


def _met(file: Path) -> Path:
    return file.with_name(f"{file.name}-and-was-met")


def command(file: Path, module: str, *flags: str) -> list[str]:
    return [sys.executable, "-m", "tests.sick_service", str(file), module, *flags]


def started(file: Path, module: str, *flags: str) -> subprocess.Popen[str]:
    """On the CPU, at loopback; what it logs can be read from its ``stderr``."""
    return subprocess.Popen(
        command(file, module, "--device=cpu", "--host=127.0.0.1", *flags),
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )


async def until_ready(process: subprocess.Popen[str], channel: grpc.aio.Channel) -> None:
    """Until it serves. A process that ends before fails the test with its last words."""
    health = health_pb2_grpc.HealthStub(channel)
    while process.poll() is None:
        with contextlib.suppress(grpc.aio.AioRpcError):
            answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=5)
            if answer.status == health_pb2.HealthCheckResponse.SERVING:
                return
        await asyncio.sleep(0.1)
    assert process.stderr is not None
    raise AssertionError(process.stderr.read())


def fall_sick_while(file: Path) -> None:
    """From now on, in this process, whenever the file is there."""
    run = DeviceThread.run

    async def sick(
        self: DeviceThread, function: Callable[..., Any], *args: Any, **more: Any
    ) -> Any:
        def work(*args: Any, **more: Any) -> Any:
            fault = file.read_text(encoding="utf-8") if file.exists() else ""
            if fault and not (fault == ODD and isinstance(function, SelfTest)):
                _met(file).touch()
                raise RuntimeError(fault)
            return function(*args, **more)

        return await run(self, work, *args, **more)

    DeviceThread.run = sick  # type: ignore[method-assign]


if __name__ == "__main__":
    path, module, *sys.argv[1:] = sys.argv[1:]
    fall_sick_while(Path(path))
    runpy.run_module(module, run_name="__main__", alter_sys=True)
