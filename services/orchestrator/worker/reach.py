"""Finds out which of a worker's VLMs answer."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from services.orchestrator.pauses import pause
from services.orchestrator.worker.targets import Targets

log = logging.getLogger(__name__)

_EVERY_SECONDS = 2.0
_DESCRIBE_SECONDS = 5.0


class Reach:
    """``vlms`` are those that answered the last time; ``known`` is set from the first time on.

    A job that needs another one stays in the queue, where it keeps no slot from others.
    """

    def __init__(self, targets: Targets) -> None:
        self.vlms: tuple[str, ...] = ()
        self.known = asyncio.Event()
        self._targets = targets

    async def run(self, stopping: asyncio.Event) -> None:
        """Asks them every few seconds, until ``stopping``."""
        async with contextlib.AsyncExitStack() as channels:
            reached = {
                name: await channels.enter_async_context(self._targets.open(name))
                for name in self._targets.addresses
            }
            while not (self.known.is_set() and stopping.is_set()):
                answers = await asyncio.gather(
                    *(replicas.answers(_DESCRIBE_SECONDS) for replicas in reached.values())
                )
                vlms = tuple(name for name, one in zip(reached, answers, strict=True) if one)
                if away := ", ".join(name for name in self.vlms if name not in vlms):
                    log.warning(
                        "jobs that need these VLMs are not claimed, since they do not answer: %s",
                        away,
                    )
                self.vlms = vlms
                self.known.set()
                await pause(_EVERY_SECONDS, stopping)
