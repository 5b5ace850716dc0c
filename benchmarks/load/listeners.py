"""Open event streams, and how many events came over them."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence

import httpx

#: More than the 5 s between two signs of life.
_TIMEOUT_SECONDS = 60.0
_POLL_SECONDS = 0.05


class Listeners:
    """``broken`` counts the causes that ended streams too early."""

    def __init__(self) -> None:
        self.heard: Counter[str] = Counter()
        self.broken: Counter[str] = Counter()

    async def listen(self, http: httpx.AsyncClient, job_id: str) -> None:
        """Counts the events of a job that does not end."""
        try:
            async with http.stream("GET", f"/v1/jobs/{job_id}/events") as response:
                response.raise_for_status()
                async for line in response.aiter_lines():
                    self.heard[job_id] += line.startswith("id:")
            self.broken["ended"] += 1
        except httpx.HTTPError as error:
            self.broken[type(error).__name__] += 1

    async def have_heard(self, told: Mapping[str, int], *, seconds: float) -> int:
        """Waits at most ``seconds`` until all events came. Returns how many were missed or came
        twice."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._off(told):  # noqa: ASYNC110
                    await asyncio.sleep(_POLL_SECONDS)
        return self._off(told)

    def _off(self, told: Mapping[str, int]) -> int:
        return sum(abs(count - self.heard[job_id]) for job_id, count in told.items())


@contextlib.asynccontextmanager
async def listening(url: str, job_ids: Sequence[str]) -> AsyncIterator[Listeners]:
    """One stream for each job, each over a connection of its own."""
    listeners = Listeners()
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=_TIMEOUT_SECONDS) as http:
        tasks = [asyncio.create_task(listeners.listen(http, job_id)) for job_id in job_ids]
        yield listeners
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
