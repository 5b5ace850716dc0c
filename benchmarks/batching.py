"""What Guide calls cost that wait together at a VLM, by what they cost one after the other.

Several generators ask one VLM service, in a process of its own. Cost is the CPU time of that
process: the calls' own work, however long they waited.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Iterator, Mapping
from typing import Any

import psutil
import torch
from rich.table import Table

from benchmarks.step import running
from dualprocess.v1 import vlm_pb2, vlm_pb2_grpc
from services.common import torch_tensors
from services.common.channels import open_channel

PRESET = "tiny-idefics2"
TOGETHER = (2, 4)
SIDE, CALLS, ROUNDS = 64, 24, 5
QUESTION = vlm_pb2.Question(question="Is the circle red?", answer="Yes")


def measure() -> dict[str, Any]:
    return {"calls": CALLS * ROUNDS, "to_one_by_one": asyncio.run(_ratios())}


async def _ratios() -> dict[str, float]:
    async with running("vlm", PRESET) as target, open_channel(target) as channel:
        guide = vlm_pb2_grpc.VlmStub(channel).Guide
        process = _serving(target)

        async def cost(together: int) -> float:
            before = _cpu(process)
            for _ in range(CALLS // together):
                await asyncio.gather(*(guide(_request(index)) for index in range(together)))
            return _cpu(process) - before

        await cost(1)
        rounds = [{number: await cost(number) for number in (1, *TOGETHER)} for _ in range(ROUNDS)]
    return {
        str(number): round(statistics.median(costs[number] / costs[1] for costs in rounds), 2)
        for number in TOGETHER
    }


def _request(seed: int) -> vlm_pb2.GuideRequest:
    images = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return vlm_pb2.GuideRequest(images=torch_tensors.to_proto(images), questions=[QUESTION])


def _serving(target: str) -> psutil.Process:
    port = f"--port={target.rpartition(':')[2]}"
    (found,) = (child for child in psutil.Process().children() if port in child.cmdline())
    return found


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def tables(result: Mapping[str, Any]) -> Iterator[Table]:
    title = f"Guide calls that wait together / one by one; CPU time of {result['calls']} calls"
    shown = Table("together", "cost of one of them", title=title)
    for number, ratio in result["to_one_by_one"].items():
        shown.add_row(number, f"{ratio:.2f}")
    yield shown
