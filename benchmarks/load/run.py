"""One run: fills the server with jobs, holds leases, sends requests, and sends an hour of
events."""

from __future__ import annotations

import asyncio
import gc
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks.load.crowding import Crowded, crowding
from benchmarks.load.holders import Done
from benchmarks.load.holding import LEASE_MS, holding
from benchmarks.load.jobs import SPEC, Filled, fill, tell_step
from benchmarks.load.listeners import Listeners, listening
from benchmarks.load.rate import Latencies, hold
from benchmarks.load.server import Server, serving
from services.orchestrator.store import redis as keys
from services.orchestrator.store.queue import Claim, Queue
from services.orchestrator.store.redis import connect

HEALTHZ, SUBMIT, READ = "GET /healthz", "POST /v1/jobs", "GET /v1/jobs/{id}"
#: ``/healthz`` of the same server with only streams and leases at the same time.
ALONE = f"{HEALTHZ}, alone"

_REDIS_RETRIES = 10
#: The share of an hour's events that come before memory is first measured, so that pools have
#: grown.
_WARM_UP = 0.1
_TELLING_AT_ONCE = 20
_LATE_SECONDS = 120.0
_BODY = SPEC.model_dump_json(exclude_unset=True)


@dataclass(frozen=True)
class Options:
    """``crowd`` is how many streams of one job are opened at once, ``hour`` is how many events a
    stream has in an hour, and ``rate`` is how often each request is sent in a second.

    The benchmark first waits for ``settle`` seconds: streams that were opened together also poll
    together, until each of their jobs has reported a step.
    """

    rate: float
    seconds: float
    leases: int
    queued: int
    streams: int
    crowd: int
    hour: int
    settle: float


@dataclass(frozen=True)
class Result:
    """Memory is the API's, in 10^6 bytes: before, in the middle of, and after an hour's events."""

    latencies: Mapping[str, Latencies]
    memory_mb: Sequence[float]
    heard: int
    crowd: Crowded
    holders: Done
    errors: Counter[str]


async def run(options: Options, folder: Path) -> Result:
    """The whole measurement, on a server that it starts and stops."""
    async with serving(folder) as server:
        redis = connect(server.redis_url, retries=_REDIS_RETRIES)
        queue = Queue(redis, lease_ms=LEASE_MS)
        filled = await fill(queue, running=options.leases, queued=options.queued)
        streamed = filled.running[: options.streams]
        async with (
            holding(server.redis_url, filled.running, folder) as holders,
            listening(server.url, [claim.job_id for claim in streamed]) as listeners,
        ):
            await asyncio.sleep(options.settle)
            latencies = await _ask(server, options, filled)
            memory = await _hour(server, options.hour, queue, streamed)
            crowd = await _crowd(server, redis, queue, options)
            done = await holders.stop()
            missed = await listeners.have_heard(await _told(redis, streamed), seconds=_LATE_SECONDS)
            errors = _errors(latencies, listeners, done, missed) + crowd.errors
            heard = listeners.heard.total()
        await redis.aclose()
    return Result(latencies, memory, heard, crowd, done, errors)


async def _crowd(server: Server, redis: keys.Client, queue: Queue, options: Options) -> Crowded:
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=server.url, limits=limits, timeout=60) as http:

        async def readyz(_: int) -> httpx.Response:
            return await http.get("/readyz")

        return await crowding(
            server,
            redis,
            queue,
            options.crowd,
            rate=options.rate,
            seconds=options.seconds,
            ask=readyz,
        )


async def _ask(server: Server, options: Options, filled: Filled) -> dict[str, Latencies]:
    known = [claim.job_id for claim in filled.running] + filled.queued
    # With an odd stride, running and waiting jobs are read in mixed order.
    stride = 997

    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=server.url, limits=limits, timeout=30) as http:

        async def healthz(_: int) -> httpx.Response:
            return await http.get("/healthz")

        async def submit(_: int) -> httpx.Response:
            headers = {
                "Content-Type": "application/json",
                "Idempotency-Key": secrets.token_hex(16),
            }
            return await http.post("/v1/jobs", content=_BODY, headers=headers)

        async def read(number: int) -> httpx.Response:
            return await http.get(f"/v1/jobs/{known[number * stride % len(known)]}")

        # Makes connections, and warms up the code.
        for request in (healthz, submit, read):
            await hold(options.rate, 1.0, request)
        # Garbage collection here would look like a pause of the server.
        gc.freeze()
        alone = await hold(options.rate, options.seconds, healthz)
        together = await asyncio.gather(
            *(hold(options.rate, options.seconds, one) for one in (submit, read, healthz))
        )
    return {ALONE: alone, **dict(zip((SUBMIT, READ, HEALTHZ), together, strict=True))}


async def _hour(server: Server, hour: int, queue: Queue, streamed: Sequence[Claim]) -> list[float]:
    """Sends an hour's events over each stream as fast as possible, and measures memory
    meanwhile."""
    begin = round(hour * _WARM_UP)
    await _tell(queue, streamed, range(1, 1 + begin))
    memory = [server.memory_mb()]
    for half in (range(begin, begin + hour // 2), range(begin + hour // 2, begin + hour)):
        await _tell(queue, streamed, [1 + number for number in half])
        memory.append(server.memory_mb())
    return memory


async def _tell(queue: Queue, streamed: Sequence[Claim], numbers: Sequence[int]) -> None:
    gate = asyncio.Semaphore(_TELLING_AT_ONCE)

    async def tell(claim: Claim) -> None:
        for number in numbers:
            async with gate:
                await tell_step(queue, claim, number)

    await asyncio.gather(*map(tell, streamed))


async def _told(redis: keys.Client, streamed: Sequence[Claim]) -> dict[str, int]:
    return {claim.job_id: await redis.xlen(keys.events_key(claim.job_id)) for claim in streamed}


def _errors(
    latencies: Mapping[str, Latencies], listeners: Listeners, done: Done, missed: int
) -> Counter[str]:
    errors = Counter[str]()
    for what, measured in latencies.items():
        errors.update({f"{what}: {error}": count for error, count in measured.errors.items()})
    errors.update({f"stream: {error}": count for error, count in listeners.broken.items()})
    errors.update({"leases lost": done.lost, "events missed or twice": missed})
    return +errors
