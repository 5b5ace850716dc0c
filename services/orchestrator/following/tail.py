"""The newest events of one job, kept for all who listen to it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable

from services.orchestrator.store.events import Place, Told, place_of

#: Of JSON that a tail keeps, beside the newest event. Who is further behind reads Redis.
_CHARACTERS = 64 * 1024
_WOKEN_TOGETHER = 25


class Tail:
    """Holds every event behind a place, which moves on as events come.

    A listener keeps the id of its last event, and nothing here knows it: so one that reads slowly,
    or not at all, costs nothing.
    """

    def __init__(self) -> None:
        self.listeners = 0
        #: The newest event's id; ``None`` until it is known.
        self.last: str | None = None
        #: Counts what changed here: who knows the number can wait for the next one.
        self.changes = 0
        #: What ended the reading, if something did.
        self.fault: BaseException | None = None
        self._told: deque[Told] = deque()
        self._characters = 0
        #: All events behind this one are held.
        self._begin: Place | None = None
        self._end: Place | None = None
        self._is_gone = False
        #: In the order of their coming.
        self._waiting: dict[asyncio.Future[None], None] = {}

    def begins(self, newest: Told | None) -> None:
        """The job's newest event when the reading began; ``None``: the job is gone."""
        if newest is None:
            self.is_gone()
            return
        self.last, self._begin = newest.id, newest.place
        if newest.is_end:
            self._end = newest.place
        self.changes += 1

    def take(self, told: Iterable[Told]) -> None:
        """The next events, without a gap."""
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
        """The job was deleted."""
        self._is_gone = True
        self.changes += 1

    def fails(self, fault: BaseException) -> None:
        """Nothing more will be read, and nobody is woken any more: all are now."""
        self.fault = fault
        self.changes += 1
        for waiting in self._taken_from_waiting():
            _wake(waiting)

    def behind(self, last: str) -> list[Told] | None:
        """All events behind ``last``; ``None`` where that is further back than is held."""
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
        """No event can come any more for who has read up to ``last``."""
        return self._is_gone or (self._end is not None and self._end <= place_of(last))

    async def changed(self, known: int, seconds: float) -> bool:
        """Whether something changed since ``changes`` was ``known``, within so many seconds."""
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
        """Tells who waits, few at a time: other requests have their turns between them."""
        for number, waiting in enumerate(self._taken_from_waiting(), 1):
            _wake(waiting)
            if number % _WOKEN_TOGETHER == 0:
                await asyncio.sleep(0)

    def _taken_from_waiting(self) -> list[asyncio.Future[None]]:
        taken, self._waiting = list(self._waiting), {}
        return taken


def _wake(waiting: asyncio.Future[None]) -> None:
    # One that left meanwhile is cancelled.
    if not waiting.done():
        waiting.set_result(None)
