"""``python -m benchmarks.load.holders``: simulated workers, all in one process.

They hold and renew the leases in a JSON file of ``[job id, token]``, report a step of each job from
time to time, and send heartbeats, like workers with two slots each. At SIGTERM they print what they
did, as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import signal
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.load.jobs import GENERATOR, VLM, tell_step
from services.orchestrator.pauses import pause
from services.orchestrator.store import redis as keys
from services.orchestrator.store.queue import Claim, LeaseLost, Owned, Queue
from services.orchestrator.store.redis import connect
from services.orchestrator.store.workers import LiveWorker, Workers

#: How often a lease is renewed in its time, as by a real worker.
_RENEWALS = 5
_SLOTS = 2
_BEAT_SECONDS, _BELIEVED_SECONDS = 4.0, 10.0
_REDIS_RETRIES = 10
_LEASES_A_POOL = 50


@dataclass
class Done:
    """``lost`` counts refused renewals and writes."""

    renewed: int = 0
    told: int = 0
    lost: int = 0


class Holders:
    """Workers of ``claims`` that share a connection pool; each job's next step comes every
    ``step_seconds``."""

    def __init__(
        self, redis: keys.Client, claims: Sequence[Claim], *, lease_seconds: float
    ) -> None:
        self.done = Done()
        self._queue = Queue(redis, lease_ms=int(lease_seconds * 1000))
        self._workers = Workers(redis)
        self._claims = claims
        self._renew_seconds = lease_seconds / _RENEWALS

    async def run(self, step_seconds: float, stopping: asyncio.Event) -> None:
        """Works until ``stopping`` is set."""
        async with asyncio.TaskGroup() as tasks:
            for index, claim in enumerate(self._claims):
                # Spread over time, like the renewals of many processes.
                share = index / len(self._claims)
                tasks.create_task(self._renew(claim, share, stopping))
                tasks.create_task(self._tell(claim, step_seconds, share, stopping))
                if index % _SLOTS == 0:
                    live = LiveWorker(f"load-{claim.job_id}", GENERATOR, (VLM,))
                    tasks.create_task(self._beat(live, share, stopping))

    async def _renew(self, claim: Claim, share: float, stopping: asyncio.Event) -> None:
        await pause(self._renew_seconds * share, stopping)
        while not stopping.is_set():
            if await self._queue.renew(claim) is Owned.LOST:
                self.done.lost += 1
                return
            self.done.renewed += 1
            await pause(self._renew_seconds, stopping)

    async def _tell(
        self, claim: Claim, every: float, share: float, stopping: asyncio.Event
    ) -> None:
        await pause(every * share, stopping)
        for number in itertools.count(1):
            if stopping.is_set():
                return
            try:
                await tell_step(self._queue, claim, number)
            except LeaseLost:
                self.done.lost += 1
                return
            self.done.told += 1
            await pause(every, stopping)

    async def _beat(self, live: LiveWorker, share: float, stopping: asyncio.Event) -> None:
        await self._workers.beat(live, seconds=_BELIEVED_SECONDS)
        await pause(_BEAT_SECONDS * share, stopping)
        while not stopping.is_set():
            await self._workers.beat(live, seconds=_BELIEVED_SECONDS)
            await pause(_BEAT_SECONDS, stopping)


async def _main(options: argparse.Namespace) -> Done:
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    claims = [
        Claim(job_id, token)
        for job_id, token in json.loads(options.claims.read_text(encoding="utf-8"))
    ]
    async with contextlib.AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
        groups = []
        for begin in range(0, len(claims), _LEASES_A_POOL):
            redis = connect(options.redis_url, retries=_REDIS_RETRIES)
            stack.push_async_callback(redis.aclose)
            some = claims[begin : begin + _LEASES_A_POOL]
            groups.append(Holders(redis, some, lease_seconds=options.lease_seconds))
            tasks.create_task(groups[-1].run(options.step_seconds, stopping))
        print("ready", flush=True)
    return Done(
        renewed=sum(group.done.renewed for group in groups),
        told=sum(group.done.told for group in groups),
        lost=sum(group.done.lost for group in groups),
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--redis-url", required=True)
    parser.add_argument("--claims", type=Path, required=True)
    parser.add_argument("--lease-seconds", type=float, default=30.0)
    parser.add_argument("--step-seconds", type=float, default=10.0)
    return parser.parse_args()


if __name__ == "__main__":
    print(json.dumps(asdict(asyncio.run(_main(_options())))))
