"""The running calls of a service, and how they end when it stops."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from services.common.errors import ServiceEnds


class Calls:
    """``close`` refuses new calls; ``end`` also ends running ones. Both tell the callers why."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[object]] = set()
        self._ended: set[asyncio.Task[object]] = set()
        self._reason = ""

    def __len__(self) -> int:
        return len(self._tasks)

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """Wraps one call, in its own task. Raises ``ServiceEnds``."""
        if self._reason:
            raise ServiceEnds(self._reason)
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            yield
        except asyncio.CancelledError:
            if task not in self._ended:
                raise
            task.uncancel()
            raise ServiceEnds(self._reason) from None
        finally:
            self._tasks.discard(task)
            self._ended.discard(task)

    def close(self, reason: str) -> None:
        self._reason = reason

    def end(self, reason: str) -> None:
        self._reason = reason
        for task in self._tasks - self._ended:
            self._ended.add(task)
            task.cancel()

    async def over(self, seconds: float) -> None:
        """Returns when no call is running, or after ``seconds``."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=seconds)
