"""Counts, for each owner, the running requests that wait for something without a job."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator

from redis.exceptions import ConnectionError, TimeoutError

from services.orchestrator.store import redis as keys
from services.orchestrator.store.quotas import QuotaExceeded
from services.orchestrator.store.scripts import script


class Turns:
    def __init__(self, redis: keys.Client) -> None:
        self._redis = redis
        self._take = script(redis, "turn")

    @contextlib.asynccontextmanager
    async def held(self, owner: str, limit: int | None, *, seconds: float) -> AsyncIterator[None]:
        """Takes one of the owner's ``limit`` turns, for at most ``seconds``; after that a turn that
        was not given back is free again. Raises ``QuotaExceeded`` while all are taken."""
        if limit is None:
            yield
            return
        turn, key = secrets.token_hex(8), keys.turns_key(owner)
        if not await self._take(keys=[key], args=[turn, limit, int(seconds * 1000)]):
            raise QuotaExceeded("running", limit)
        try:
            yield
        finally:
            # If Redis is away, the turn ends by itself.
            with contextlib.suppress(ConnectionError, TimeoutError):
                await self._redis.zrem(key, turn)
