"""Checks whether the keys of open streams are still valid."""

from __future__ import annotations

import asyncio
import time

from services.orchestrator.api.auth import Caller
from services.orchestrator.store.keys import ApiKeys

#: How long an answer is used, for all streams of the key.
_SECONDS = 1.0


class Rechecks:
    """Asks Redis about a key once for all streams that ask at the same time."""

    def __init__(self, keys: ApiKeys) -> None:
        self._keys = keys
        #: Key id → the time of the last check, and its answer.
        self._asked: dict[str, tuple[float, asyncio.Task[bool]]] = {}

    async def still_opens(self, caller: Caller) -> bool:
        """Whether the caller's key is still valid."""
        if caller.key is None:
            return True
        asked, answer = self._asked.get(caller.owner, (0.0, None))
        now = time.monotonic()
        if answer is None or now - asked > _SECONDS:
            answer = asyncio.create_task(self._opens(caller.key))
            self._asked[caller.owner] = now, answer
        # If one stream ends meanwhile, the others still get the answer.
        return await asyncio.shield(answer)

    async def _opens(self, key: str) -> bool:
        found = await self._keys.find(key)
        return found is not None and found.revoked_at is None
