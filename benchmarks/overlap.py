"""How much sooner two jobs are done side by side than one after the other.

The scheduling is the project's own: its steps, its device's thread, its VLM service in a second
process. The devices sleep instead of computing, for as long as a GPU would, so the CPUs of this
machine don't decide. Two jobs on one generator can at best take as long as their busier device.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import statistics
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from rich.table import Table

from benchmarks.serving import serve
from dualprocess.v1 import generator_pb2 as pb
from dualprocess.v1 import vlm_pb2, vlm_pb2_grpc
from services.common.channels import open_channel
from services.common.credentials import OPEN
from services.common.device import DeviceThread
from services.common.replicas import Replicas
from services.generator.guide import VlmGuide
from services.generator.step import run_step
from services.generator.training import Learned, Made, Training
from services.local.ports import free_port

PRESET = "tiny-idefics2"
STEPS, ROUNDS = 8, 3
#: Milliseconds of forward pass, backward pass, and the VLM.
DEVICES = {"VLM 15 %": (45, 55, 15), "VLM 30 %": (45, 55, 40), "VLM 50 %": (30, 30, 60)}


def measure() -> dict[str, Any]:
    return {
        "steps": STEPS,
        "devices": {name: asyncio.run(_ratio(*times)) for name, times in DEVICES.items()},
    }


async def _ratio(forward: int, backward: int, vlm: int) -> dict[str, float]:
    port = free_port()
    server = multiprocessing.get_context("spawn").Process(
        target=_serve_sleeping, args=(port, vlm / 1000), daemon=True
    )
    server.start()
    try:
        async with open_channel(f"127.0.0.1:{port}") as channel:
            async with asyncio.timeout(120):
                await channel.channel_ready()
        training = Sleeping(forward / 1000, backward / 1000)
        await _seconds(port, training, jobs=1)
        ratios = [
            2 * await _seconds(port, training, jobs=1) / await _seconds(port, training, jobs=2)
            for _ in range(ROUNDS)
        ]
    finally:
        server.terminate()
        server.join()
    together = max(forward + backward, vlm)
    return {
        "speed_up": round(statistics.median(ratios), 3),
        "at_best": round((forward + backward + vlm) / together, 3),
    }


async def _seconds(port: int, training: Sleeping, *, jobs: int) -> float:
    device = DeviceThread("cpu")
    begin = time.perf_counter()
    await asyncio.gather(*(_job(port, device, training) for _ in range(jobs)))
    seconds = time.perf_counter() - begin
    device.close()
    return seconds


async def _job(port: int, device: DeviceThread, training: Sleeping) -> None:
    async def told(reason: str) -> None:
        raise RuntimeError(reason)

    question = vlm_pb2.Question(question="Is it red?", answer="Yes")
    spec = pb.OptimizeSpec(questions=[question])
    spec.optimizer.accumulate = 1
    async with Replicas(f"127.0.0.1:{port}", OPEN, preset=PRESET) as replicas:
        guide = VlmGuide(replicas, [question], "", vlm_pb2.GuideGuard(), waiting=told, warn=told)
        for step in range(STEPS):
            await run_step(device, cast(Training, training), guide, spec, step)


@dataclass
class Sleeping:
    """A ``Training`` whose device sleeps; images of 512² in bfloat16."""

    forward_seconds: float
    backward_seconds: float

    def forward(self, _step: int, _micro_step: int) -> Made:
        time.sleep(self.forward_seconds)
        images = torch.zeros(1, 3, 512, 512, dtype=torch.bfloat16)
        return Made(images, images, cast(Any, None))

    def compare(self, _made: Made) -> None:
        return None

    def backward(self, *_: object) -> None:
        time.sleep(self.backward_seconds)

    def update(self) -> Learned:
        return Learned(1.0, None)


def _serve_sleeping(port: int, seconds: float) -> None:
    vlm = SleepingVlm(seconds)  # type: ignore[abstract]
    asyncio.run(serve(port, lambda server: vlm_pb2_grpc.add_VlmServicer_to_server(vlm, server)))


class SleepingVlm(vlm_pb2_grpc.VlmServicer):
    """Answers after a sleep on its device's thread; the gradient is the image."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._device = DeviceThread("cpu")

    async def Describe(  # noqa: N802
        self, _request: vlm_pb2.VlmDescribeRequest, _context: Any
    ) -> vlm_pb2.VlmDescribeResponse:
        return vlm_pb2.VlmDescribeResponse(preset=PRESET)

    async def Guide(  # noqa: N802
        self, request: vlm_pb2.GuideRequest, _context: Any
    ) -> vlm_pb2.GuideResponse:
        await self._device.run(time.sleep, self._seconds)
        answer = vlm_pb2.AnswerResult(
            loss=1.0, joint_probability=0.5, geometric_mean_probability=0.5
        )
        response = vlm_pb2.GuideResponse(
            loss=1.0,
            images=[vlm_pb2.ImageAnswers(answers=[answer])],
            seconds=self._seconds,
        )
        response.gradient.CopyFrom(request.images)
        return response


def tables(result: Mapping[str, Any]) -> Iterator[Table]:
    title = f"two jobs of {result['steps']} steps side by side: how many times as fast"
    shown = Table("devices", "speed-up", "at best", title=title)
    for name, of in result["devices"].items():
        shown.add_row(name, f"{of['speed_up']:.2f}", f"{of['at_best']:.2f}")
    yield shown
