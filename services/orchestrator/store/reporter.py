"""Which one of several API processes tells what is true of the whole service.

Each of them could: then a sum over them would count every job as often as there are processes.
"""

from __future__ import annotations

import secrets

from services.orchestrator.store import redis as keys
from services.orchestrator.store.scripts import script

#: Longer than Prometheus pauses between two looks; a reporter that died is missed for so long.
_SECONDS = 90


class Reporter:
    """``asked`` is for whoever is asked for it: who answers first goes on, until nobody asks it
    any more."""

    def __init__(self, redis: keys.Client) -> None:
        self._id = secrets.token_hex(8)
        self._script = script(redis, "reporter")

    async def asked(self) -> bool:
        """Whether it is this process that tells."""
        return bool(await self._script(keys=[keys.REPORTER], args=[self._id, _SECONDS * 1000]))

    async def leave(self) -> None:
        """Another may tell from now on."""
        await self._script(keys=[keys.REPORTER], args=[self._id, 0])
