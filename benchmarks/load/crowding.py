"""How long other requests take while very many streams of one job open, and while events come."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import httpx

from benchmarks.load.crowd import Opened
from benchmarks.load.jobs import GENERATOR, VLM, tell_step
from benchmarks.load.rate import Latencies, hold
from benchmarks.load.server import Server
from services.orchestrator.store import redis as keys
from services.orchestrator.store.queue import Queue

BEFORE, OPENING, OPEN = "before", "while they open", "while events come"
_EVENT_SECONDS = 0.2
_LATE_SECONDS = 5.0


@dataclass(frozen=True)
class Crowded:
    """Other requests at a constant rate, and how many connections Redis had before and during the
    crowd."""

    opened: Opened
    others: dict[str, Latencies]
    redis_connections: tuple[int, int]
    errors: Counter[str]


async def crowding(
    server: Server,
    redis: keys.Client,
    queue: Queue,
    streams: int,
    *,
    rate: float,
    seconds: float,
    ask: Callable[[int], Awaitable[httpx.Response]],
) -> Crowded:
    """Opens ``streams`` streams of one job. ``ask`` sends one of the other requests."""
    claim = await queue.claim("crowd", await queue.served_by(GENERATOR, [VLM]))
    assert claim is not None
    others = {BEFORE: await hold(rate, seconds, ask)}
    before = await _connections(redis)
    port = server.url.rpartition(":")[2]
    flags = [f"--port={port}", f"--job={claim.job_id}", f"--streams={streams}"]
    crowd = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.load.crowd", *flags, stdout=asyncio.subprocess.PIPE
    )
    assert crowd.stdout is not None
    try:
        # The process takes a while to start, so the other requests go on until it has reported.
        said = asyncio.create_task(crowd.stdout.readline())
        others[OPENING] = await hold(rate, seconds, ask)
        opened = Opened(**json.loads(await said))
        meanwhile = asyncio.create_task(hold(rate, seconds, ask))
        number = 0
        while not meanwhile.done():
            number += 1
            await queue.renew(claim)
            await tell_step(queue, claim, number)
            await asyncio.sleep(_EVENT_SECONDS)
        others[OPEN] = await meanwhile
        connections = before, await _connections(redis)
        told = await redis.xlen(keys.events_key(claim.job_id))
        await asyncio.sleep(_LATE_SECONDS)
        crowd.terminate()
        end = json.loads((await crowd.communicate())[0])
    finally:
        if crowd.returncode is None:
            crowd.kill()
            await crowd.wait()
    errors = Counter[str]()
    for when, measured in others.items():
        errors.update({f"crowd, {when}: {what}": n for what, n in measured.errors.items()})
    missed = sum(abs(told - heard) for heard in end["heard"])
    errors.update(
        {"crowd: broken": end["broken"], "crowd: neither accepted nor refused": opened.other}
    )
    errors.update({"crowd: events missed or twice": missed})
    return Crowded(opened, others, connections, +errors)


async def _connections(redis: keys.Client) -> int:
    return int((await redis.info("clients"))["connected_clients"])
