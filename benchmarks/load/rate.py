"""Sends requests at a constant rate, however long each takes."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import httpx


@dataclass
class Latencies:
    """``seconds`` from when each request was due to the end of its answer."""

    seconds: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    per_second: float = 0.0

    def percentile_ms(self, percent: float) -> float:
        """The latency that this many percent of the requests don't exceed."""
        ordered = sorted(self.seconds)
        place = math.ceil(percent / 100 * len(ordered)) - 1
        return 1000 * ordered[max(place, 0)] if ordered else math.nan


async def hold(
    rate: float, seconds: float, request: Callable[[int], Awaitable[httpx.Response]]
) -> Latencies:
    """Sends ``rate`` requests each second. A slow answer does not delay the next requests."""
    latencies, loop = Latencies(), asyncio.get_running_loop()
    begin = loop.time()

    async def one(number: int, due: float) -> None:
        try:
            response = await request(number)
        except httpx.HTTPError as error:
            latencies.errors[type(error).__name__] += 1
            return
        latencies.seconds.append(loop.time() - due)
        if not response.is_success:
            latencies.errors[str(response.status_code)] += 1

    async with asyncio.TaskGroup() as tasks:
        for number in range(round(rate * seconds)):
            due = begin + number / rate
            await asyncio.sleep(max(due - loop.time(), 0))
            tasks.create_task(one(number, due))
    latencies.per_second = len(latencies.seconds) / (loop.time() - begin)
    return latencies
