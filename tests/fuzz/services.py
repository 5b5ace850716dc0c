"""Generator and VLM as processes of their own, on the tiny random models, to be attacked."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import psutil
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.common.presets import load_presets
from services.local.ports import free_port

MODELS = Path(__file__).parents[1] / "fixtures" / "parity" / "models"
GENERATOR, VLM = "flux-schnell", "idefics2"
_START_SECONDS = 150.0


@dataclass(frozen=True)
class Service:
    """A process that listens at ``target``."""

    name: str
    target: str
    process: psutil.Process
    log: Path

    @property
    def is_alive(self) -> bool:
        return self.process.is_running() and self.process.status() != psutil.STATUS_ZOMBIE

    @property
    def mebibytes(self) -> float:
        return float(self.process.memory_info().rss) / 2**20

    @property
    def serves(self) -> bool:
        """Whether its health service says so."""
        with grpc.insecure_channel(self.target) as channel:
            try:
                answer = health_pb2_grpc.HealthStub(channel).Check(
                    health_pb2.HealthCheckRequest(), timeout=20
                )
            except grpc.RpcError:
                return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


@contextlib.contextmanager
def running(folder: Path) -> Iterator[tuple[Service, Service]]:
    """Generator and VLM, ready; stopped in the end."""
    presets = folder / "presets"
    _write_presets(presets)
    with contextlib.ExitStack() as stack:
        generator, vlm = (
            stack.enter_context(_started(folder, name, preset, presets))
            for name, preset in (("generator", GENERATOR), ("vlm", VLM))
        )
        for service in (generator, vlm):
            _wait_until_ready(service)
        yield generator, vlm


def _write_presets(folder: Path) -> None:
    """The real presets on the tiny models, small enough that a valid request is a short one."""
    real = load_presets()
    sides = {"multiple_of": 16, "minimum": 16, "maximum": 64}
    changes = {"model": str(MODELS / GENERATOR), "dtype": "float32", "sides": sides}
    generator = real.generator(GENERATOR).model_dump(mode="json") | changes
    vlm = real.vlm(VLM).model_dump(mode="json")
    vlm |= {"model": str(MODELS / VLM), "dtype": "float32"}
    for kind, preset in (("generators", generator), ("vlms", vlm)):
        (folder / kind).mkdir(parents=True)
        (folder / kind / f"{preset['name']}.yaml").write_text(yaml.safe_dump(preset))


@contextlib.contextmanager
def _started(folder: Path, name: str, preset: str, presets: Path) -> Iterator[Service]:
    port = free_port()
    log = folder / f"{name}.log"
    command = [sys.executable, "-m", f"services.{name}", f"--preset={preset}", f"--port={port}"]
    command += [f"--presets={presets}", "--device=cpu", "--log-level=warning"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env={**os.environ, "HF_HUB_OFFLINE": "1"}
        )
    try:
        yield Service(name, f"127.0.0.1:{port}", psutil.Process(process.pid), log)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(service: Service) -> None:
    end = time.monotonic() + _START_SECONDS
    while not service.serves:
        if not service.is_alive or time.monotonic() > end:
            raise RuntimeError(f"{service.name} did not start:\n{service.log.read_text()}")
        time.sleep(0.2)
