"""What a step costs by phase, in two services and in one process, run in turn.

``python -m benchmarks.step`` prints the table; ``--save`` keeps it in ``benchmarks/results/``.
Both do the same arithmetic on the same models, seed and spec, with one thread a process. The
services add the wire: bytes of image and gradient, gRPC, a second process. Quote the ratio: a
machine's noise meets both alike.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
from rich.console import Console
from rich.table import Table

from benchmarks.machine import provenance
from dualprocess.cli import specs
from dualprocess.schemas import ResolvedJobSpec
from dualprocess.v1 import generator_pb2 as pb
from dualprocess.v1 import generator_pb2_grpc
from models.training.one_process import OneProcess
from services.common.channels import open_channel
from services.common.presets import load_presets
from services.local.ports import free_port
from services.orchestrator.api.resolve import resolve_job
from services.orchestrator.worker import wire

ROOT = Path(__file__).parents[1]
PHASES = ("forward", "vlm", "wire", "backward", "total")
#: Steps at the start of a round that don't count: pages and caches warm up.
WARM_UP = 2

Times = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20, help="that count, in a round")
    parser.add_argument("--rounds", type=int, default=5, help="of each side")
    parser.add_argument("--save", action="store_true")
    arguments = parser.parse_args()
    steps: int = arguments.steps + WARM_UP
    file = specs.load(
        str(ROOT / "examples" / "red-circle.yaml"),
        [f"optimizer.steps={steps}", "optimizer.batch=4", "eval.images=1", "eval.every=0"],
    )
    spec = resolve_job(file, load_presets())
    services, alone = asyncio.run(measure(spec, arguments.rounds))
    result = summary(services, alone) | {"batch": spec.optimizer.batch, "image": spec.image.width}
    Console().print(table(result))
    if arguments.save:
        path = Path(__file__).parent / "results" / "step.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(provenance() | result, indent=2) + "\n", encoding="utf-8")


async def measure(spec: ResolvedJobSpec, rounds: int) -> tuple[list[Times], list[Times]]:
    """Every counted step of both sides."""
    services: list[Times] = []
    alone: list[Times] = []
    async with (
        running("vlm", spec.vlm[0].name) as vlm,
        running("generator", spec.generator) as generator,
    ):
        for _ in range(rounds):
            services += (await service_steps(spec, generator, vlm))[WARM_UP:]
            alone += own_steps(spec)[WARM_UP:]
    return services, alone


@contextlib.asynccontextmanager
async def running(service: str, preset: str) -> AsyncIterator[str]:
    """The service in a process of its own; its address."""
    port = free_port()
    arguments = ["-m", f"services.{service}", f"--preset={preset}", f"--port={port}"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, stderr=asyncio.subprocess.DEVNULL
    )
    target = f"127.0.0.1:{port}"
    try:
        async with grpc.aio.insecure_channel(target) as channel:
            async with asyncio.timeout(120):
                await channel.channel_ready()
        yield target
    finally:
        process.terminate()
        await process.wait()


async def service_steps(spec: ResolvedJobSpec, generator: str, vlm: str) -> list[Times]:
    async with open_channel(generator) as channel:
        stub = generator_pb2_grpc.GeneratorStub(channel)

        async def requests() -> AsyncIterator[pb.OptimizeRequest]:
            yield pb.OptimizeRequest(spec=wire.optimize_spec(spec, {spec.vlm[0].name: vlm}))

        return [
            {phase: getattr(response.step.timings, phase) for phase in PHASES}
            async for response in stub.Optimize(requests())
            if response.HasField("step")
        ]


def own_steps(spec: ResolvedJobSpec) -> list[Times]:
    job = OneProcess(spec)
    made = [job.step() for _ in range(spec.optimizer.steps)]
    return [
        {phase: 0.0 if phase == "wire" else getattr(step, phase) for phase in PHASES}
        for step in made
    ]


def summary(services: list[Times], alone: list[Times]) -> dict[str, object]:
    def medians(steps: list[Times]) -> Times:
        return {phase: statistics.median(step[phase] for step in steps) for phase in PHASES}

    apart, together = medians(services), medians(alone)
    return {
        "steps": len(services),
        "services_ms": {phase: round(1000 * apart[phase], 2) for phase in PHASES},
        "one_process_ms": {phase: round(1000 * together[phase], 2) for phase in PHASES},
        "wire_share": round(apart["wire"] / apart["total"], 4),
        "services_to_one_process": round(apart["total"] / together["total"], 3),
    }


def table(result: dict[str, object]) -> Table:
    title = (
        f"median of {result['steps']} steps: services / one process = "
        f"{result['services_to_one_process']}, the wire's share {result['wire_share']:.1%}"
    )
    shown = Table("phase", "services, ms", "one process, ms", title=title)
    for row in _rows(result):
        shown.add_row(*row)
    return shown


def _rows(result: dict[str, object]) -> Iterator[tuple[str, str, str]]:
    apart, together = result["services_ms"], result["one_process_ms"]
    assert isinstance(apart, dict)
    assert isinstance(together, dict)
    for phase in PHASES:
        yield phase, f"{apart[phase]:.2f}", f"{together[phase]:.2f}" if together[phase] else "–"


if __name__ == "__main__":
    main()
