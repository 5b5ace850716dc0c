"""Measures what each phase of a step costs, in two services and in one process, without the guard
and with each of its terms, in turn.

The services and the one process compute the same, with the same models, seed and spec, and one
thread for each process. The services also send images and gradients over gRPC to a second process.
Quote the ratios, not the times: noise of the machine affects both sides alike.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from rich.table import Table

from dualprocess.cli import specs
from dualprocess.schemas import GuardOptions, ResolvedJobSpec
from dualprocess.v1 import generator_pb2 as pb
from dualprocess.v1 import generator_pb2_grpc
from models.training.one_process import OneProcess, Pair
from services.common.channels import open_channel
from services.common.presets import load_presets
from services.local.ports import free_port
from services.orchestrator.api.resolve import resolve_job
from services.orchestrator.worker import wire

ROOT = Path(__file__).parents[1]
#: The guard's terms, one at a time.
GUARDS = {
    "off": GuardOptions(anchor=0, margin=1, worst_case=0),
    "anchor": GuardOptions(margin=1, worst_case=0),
    "anchor, margin": GuardOptions(worst_case=0),
    "anchor, margin, worst case": GuardOptions(worst_case=0.04),
}
PHASES = ("forward", "vlm", "wire", "backward", "total")
#: Steps at the start of a round that don't count, while pages and caches warm up.
WARM_UP = 2
#: Steps that count, in a round of each side.
STEPS, ROUNDS = 12, 3

Times = dict[str, float]


@dataclass
class Measured:
    """All counted steps of both sides."""

    services: list[Times] = field(default_factory=list)
    alone: list[Times] = field(default_factory=list)


def measure() -> dict[str, Any]:
    steps = STEPS + WARM_UP
    file = specs.load(
        str(ROOT / "examples" / "red-circle.yaml"),
        [f"optimizer.steps={steps}", "optimizer.batch=4", "eval.images=1", "eval.every=0"],
    )
    asked = {name: file.model_copy(update={"guard": guard}) for name, guard in GUARDS.items()}
    presets = load_presets()
    resolved = {name: resolve_job(spec, presets) for name, spec in asked.items()}
    measured = asyncio.run(in_turn(resolved, ROUNDS))
    off = resolved["off"]
    return {"batch": off.optimizer.batch, "image": off.image.width, **summary(measured)}


async def in_turn(asked: Mapping[str, ResolvedJobSpec], rounds: int) -> dict[str, Measured]:
    """Runs each spec on each side in turn, round after round."""
    measured = {name: Measured() for name in asked}
    one = next(iter(asked.values()))
    async with (
        running("vlm", one.vlm[0].name) as vlm,
        running("generator", one.generator) as generator,
    ):
        pair = Pair.load(one.generator, one.vlm[0].name)
        for _ in range(rounds):
            for name, spec in asked.items():
                measured[name].services += (await service_steps(spec, generator, vlm))[WARM_UP:]
                measured[name].alone += own_steps(spec, pair)[WARM_UP:]
    return measured


#: gRPC waits for seconds before its third try, which is no part of a start.
_TRIES_OFTEN = [(f"grpc.{which}_reconnect_backoff_ms", 100) for which in ("initial", "min", "max")]


@contextlib.asynccontextmanager
async def running(service: str, preset: str) -> AsyncIterator[str]:
    """Runs the service in a process of its own. Yields its address."""
    port = free_port()
    arguments = ["-m", f"services.{service}", f"--preset={preset}", f"--port={port}"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, stderr=asyncio.subprocess.DEVNULL
    )
    target = f"127.0.0.1:{port}"
    try:
        async with grpc.aio.insecure_channel(target, _TRIES_OFTEN) as channel:
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


def own_steps(spec: ResolvedJobSpec, pair: Pair) -> list[Times]:
    job = OneProcess(spec, pair)
    made = [job.step() for _ in range(spec.optimizer.steps)]
    job.close()
    return [
        {phase: 0.0 if phase == "wire" else getattr(step, phase) for phase in PHASES}
        for step in made
    ]


def summary(measured: Mapping[str, Measured]) -> dict[str, Any]:
    """Medians for each guard, and their ratios."""
    found = {name: _medians(both) for name, both in measured.items()}
    off = found["off"]["services_ms"]["total"]
    return {
        "steps": len(measured["off"].services),
        "guard": {
            name: medians | {"to_off": round(medians["services_ms"]["total"] / off, 3)}
            for name, medians in found.items()
        },
    }


def _medians(both: Measured) -> dict[str, Any]:
    def of(steps: list[Times]) -> Times:
        return {
            phase: round(1000 * statistics.median(step[phase] for step in steps), 2)
            for phase in PHASES
        }

    apart, together = of(both.services), of(both.alone)
    return {
        "services_ms": apart,
        "one_process_ms": together,
        "wire_share": round(apart["wire"] / apart["total"], 4),
        "services_to_one_process": round(apart["total"] / together["total"], 3),
    }


def tables(result: Mapping[str, Any]) -> Iterator[Table]:
    for name, of in result["guard"].items():
        title = (
            f"guard: {name}; median of {result['steps']} steps: {of['to_off']} times a step "
            f"without it; services / one process = {of['services_to_one_process']}, the wire's "
            f"share {of['wire_share']:.1%}"
        )
        shown = Table("phase", "services, ms", "one process, ms", title=title)
        for phase in PHASES:
            apart, together = of["services_ms"][phase], of["one_process_ms"][phase]
            shown.add_row(phase, f"{apart:.2f}", f"{together:.2f}" if together else "–")
        yield shown
