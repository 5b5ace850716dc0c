"""Keeps the newest events of one job for all its listeners."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable

from services.orchestrator.store.events import Place, Told, place_of

#: Characters of JSON that a tail keeps, besides the newest event. Slower listeners read Redis.
_CHARACTERS = 64 * 1024
_WOKEN_TOGETHER = 25


class Tail:
    """Has all events after some place. The place moves forward as events come.

    Only the listener itself remembers its last event. So a listener that reads slowly, or not at
    all, costs nothing here.
    """

    def __init__(self) -> None:
        self.listeners = 0
        #: The newest event's id; ``None`` until it is known.
        self.last: str | None = None
        #: Counts the changes of this tail; ``changed`` waits until it is higher.
        self.changes = 0
        #: The error that ended the reading, if there was one.
        self.fault: BaseException | None = None
        self._told: deque[Told] = deque()
        self._characters = 0
        #: All events after this place are here.
        self._begin: Place | None = None
        self._end: Place | None = None
        self._is_gone = False
        #: In the order in which they came.
        self._waiting: dict[asyncio.Future[None], None] = {}

    def begins(self, newest: Told | None) -> None:
        """Sets the job's newest event when the reading begins; ``None`` if the job was deleted."""
        if newest is None:
            self.is_gone()
            return
        self.last, self._begin = newest.id, newest.place
        if newest.is_end:
            self._end = newest.place
        self.changes += 1

    def take(self, told: Iterable[Told]) -> None:
        """Adds the next events. There must be no gap."""
        for one in told:
            self._told.append(one)
            self._characters += len(one.json)
            self.last = one.id
            if one.is_end:
                self._end = one.place
        while self._characters > _CHARACTERS and len(self._told) > 1:
            oldest = self._told.popleft()
            self._characters -= len(oldest.json)
            self._begin = oldest.place
        self.changes += 1

    def is_gone(self) -> None:
        """Notes that the job was deleted."""
        self._is_gone = True
        self.changes += 1

    def fails(self, fault: BaseException) -> None:
        """Notes that nothing more will be read, and wakes all listeners for the last time."""
        self.fault = fault
        self.changes += 1
        for waiting in self._taken_from_waiting():
            _wake(waiting)

    def behind(self, last: str) -> list[Told] | None:
        """All events after ``last``; ``None`` if some of them are no longer here."""
        place = place_of(last)
        if self._begin is None or place < self._begin:
            return None
        found = []
        for one in reversed(self._told):
            if one.place <= place:
                break
            found.append(one)
        return found[::-1]

    def is_over(self, last: str) -> bool:
        """Whether no event can come any more after ``last``."""
        return self._is_gone or (self._end is not None and self._end <= place_of(last))

    async def changed(self, known: int, seconds: float) -> bool:
        """Waits at most ``seconds`` until ``changes`` is not ``known``. Whether it changed."""
        if self.changes == known:
            waiting = asyncio.get_running_loop().create_future()
            self._waiting[waiting] = None
            try:
                async with asyncio.timeout(seconds):
                    await waiting
            except TimeoutError:
                pass
            finally:
                self._waiting.pop(waiting, None)
        return self.changes != known

    async def wake(self) -> None:
        """Wakes all listeners, few at a time, so that other requests go on meanwhile."""
        for number, waiting in enumerate(self._taken_from_waiting(), 1):
            _wake(waiting)
            if number % _WOKEN_TOGETHER == 0:
                await asyncio.sleep(0)

    def _taken_from_waiting(self) -> list[asyncio.Future[None]]:
        taken, self._waiting = list(self._waiting), {}
        return taken


def _wake(waiting: asyncio.Future[None]) -> None:
    # It is done if the listener left meanwhile.
    if not waiting.done():
        waiting.set_result(None)
