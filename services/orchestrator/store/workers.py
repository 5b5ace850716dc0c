"""Which workers live, and what each serves."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Collection
from dataclasses import dataclass, replace

from services.orchestrator.store import redis as keys

#: A device that is away for less than this may come back, as after a restart. A job that failed on
#: another device waits for it.
DEVICE_SECONDS = 120.0
#: How old a shared look at the live workers may be.
_LOOK_SECONDS = 1.0


@dataclass(frozen=True)
class LiveWorker:
    """``device`` is the name of the generator's device."""

    id: str
    generator: str
    vlms: tuple[str, ...]
    device: str = ""

    def serves(self, generator: str, vlms: Collection[str]) -> bool:
        """Whether the worker can run a job that needs these; an empty ``generator`` means that it
        needs none."""
        return generator in ("", self.generator) and set(vlms) <= set(self.vlms)


class Workers:
    def __init__(self, redis: keys.Client) -> None:
        self._redis = redis
        self._seen: list[LiveWorker] = []
        self._looked_at = -math.inf
        self._looking = asyncio.Lock()

    async def beat(self, worker: LiveWorker, *, seconds: float) -> None:
        """``worker`` counts as alive for this time."""
        now = await self._now()
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.zadd(keys.WORKERS, {_dump(worker): now + seconds})
            pipe.zremrangebyscore(keys.WORKERS, "-inf", now)
            if worker.device:
                pipe.zadd(keys.DEVICES, {_dump(replace(worker, id="")): now})
                pipe.zremrangebyscore(keys.DEVICES, "-inf", now - DEVICE_SECONDS)
            await pipe.execute()

    async def leave(self, worker: LiveWorker) -> None:
        await self._redis.zrem(keys.WORKERS, _dump(worker))

    async def live(self) -> list[LiveWorker]:
        found = await self._redis.zrangebyscore(keys.WORKERS, await self._now(), "+inf")
        return [_load(text) for text in found]

    async def lately(self) -> list[LiveWorker]:
        """The workers that were alive at most a second ago. It is shared, so that frequent calls
        cost the same however many workers there are."""
        async with self._looking:
            if time.monotonic() - self._looked_at > _LOOK_SECONDS:
                self._seen = await self.live()
                self._looked_at = time.monotonic()
            return self._seen

    async def _now(self) -> float:
        seconds, micros = await self._redis.time()
        return float(seconds) + float(micros) / 1e6


def _dump(worker: LiveWorker) -> str:
    fields = {
        "id": worker.id,
        "generator": worker.generator,
        "vlms": sorted(worker.vlms),
        "device": worker.device,
    }
    return json.dumps(fields, sort_keys=True)


def _load(text: str) -> LiveWorker:
    fields = json.loads(text)
    # Workers of older versions name no device.
    device = fields.get("device", "")
    return LiveWorker(fields["id"], fields["generator"], tuple(fields["vlms"]), device)
