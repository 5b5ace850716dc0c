"""Reads the events of jobs from Redis, over one connection for any number of listeners."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import AsyncGenerator, Iterator, Sequence

from redis.exceptions import ConnectionError

from services.orchestrator.following.tail import Tail
from services.orchestrator.store import redis as keys
from services.orchestrator.store.events import Events, Told, told

log = logging.getLogger(__name__)

#: How long one read waits for events. A job with its first listener waits for the next read.
_BLOCK_MS = 100
#: The pause after a read with events, so that events that come together are read together.
_PAUSE_SECONDS = 0.01
#: An additional pause for each job, since a read names all jobs.
_PAUSE_SECONDS_A_JOB = 0.00005
#: The most events of one job in one read.
_BATCH = 16
#: Between two checks whether silent jobs still exist, and between two signs of life.
_QUIET_SECONDS = 5.0
#: The most listeners that read older events from Redis at once; other requests need connections,
#: too.
_CATCHING_UP = 8


class Following:
    """Follows the events of jobs. ``close`` it before its Redis client."""

    def __init__(self, redis: keys.Client) -> None:
        self._events = Events(redis)
        #: Job id → its newest events, for each job that somebody listens to.
        self._tails: dict[str, Tail] = {}
        self._reading: asyncio.Task[None] | None = None
        self._catching_up = asyncio.Semaphore(_CATCHING_UP)

    async def close(self) -> None:
        """Stops reading, and ends all streams."""
        for tail in self._tails.values():
            tail.fails(ConnectionError("the server is stopping"))
        self._tails.clear()
        if self._reading is not None:
            await asyncio.wait([self._reading])

    async def follow(
        self, job_id: str, after: str = "0-0", *, seconds: float = math.inf
    ) -> AsyncGenerator[list[Told], None]:
        """Every event after ``after`` once, in order, as they come, up to the job's last one.

        Yields an empty list from time to time while nothing happens. Ends at once if ``after`` is
        the last event; ends when the job is deleted, and after ``seconds``. Raises
        ``ConnectionError`` when Redis is lost.
        """
        end = time.monotonic() + seconds
        last = after
        with self._listening(job_id) as tail:
            while (left := end - time.monotonic()) > 0:
                # Taken before the events are read, so that a later change is noticed.
                known = tail.changes
                if tail.fault is not None:
                    raise ConnectionError(f"the job's events can't be read: {tail.fault}")
                batch = tail.behind(last)
                if batch is None:
                    async with self._catching_up:
                        batch = await self._events.behind(job_id, last, count=_BATCH)
                if batch:
                    last = batch[-1].id
                    yield batch
                    if batch[-1].is_end:
                        return
                elif tail.is_over(last):
                    return
                elif not await tail.changed(known, min(_QUIET_SECONDS, left)):
                    yield []

    @contextlib.contextmanager
    def _listening(self, job_id: str) -> Iterator[Tail]:
        tail = self._tails.setdefault(job_id, Tail())
        tail.listeners += 1
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read())
            self._reading.add_done_callback(self._ended)
        try:
            yield tail
        finally:
            tail.listeners -= 1
            if not tail.listeners and self._tails.get(job_id) is tail:
                del self._tails[job_id]

    async def _read(self) -> None:
        """Reads events as long as somebody listens."""
        looked = time.monotonic()
        while self._tails:
            await self._begin([job_id for job_id, tail in self._tails.items() if not tail.last])
            if time.monotonic() - looked > _QUIET_SECONDS:
                looked = time.monotonic()
                await self._look_for_gone()
            known = {job_id: tail.last for job_id, tail in self._tails.items() if tail.last}
            if not known:
                # All these jobs were deleted; their listeners will leave.
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            news = await self._events.news(known, count=_BATCH, block_ms=_BLOCK_MS)
            for job_id, entries in news.items():
                # Skipped if the listeners left meanwhile. If some came back, their tail is new.
                if (tail := self._tails.get(job_id)) and tail.last == known[job_id]:
                    with self._own_faults(job_id, tail):
                        tail.take([told(*entry) for entry in entries])
                    await tail.wake()
            if news:
                await asyncio.sleep(_PAUSE_SECONDS + _PAUSE_SECONDS_A_JOB * len(known))

    async def _begin(self, fresh: Sequence[str]) -> None:
        if not fresh:
            return
        for job_id, entry in (await self._events.newest(fresh)).items():
            if tail := self._tails.get(job_id):
                with self._own_faults(job_id, tail):
                    tail.begins(told(*entry) if entry else None)
                await tail.wake()

    async def _look_for_gone(self) -> None:
        for job_id in await self._events.gone(list(self._tails)):
            if tail := self._tails.get(job_id):
                tail.is_gone()
                await tail.wake()

    @contextlib.contextmanager
    def _own_faults(self, job_id: str, tail: Tail) -> Iterator[None]:
        """If an event can't be read, only the streams of its job fail."""
        try:
            yield
        except ValueError as error:
            log.error("an event of job %s can't be read: %s", job_id, error)
            del self._tails[job_id]
            tail.fails(error)

    def _ended(self, reading: asyncio.Task[None]) -> None:
        fault = asyncio.CancelledError() if reading.cancelled() else reading.exception()
        if fault is not None:
            log.warning("events can't be read for now: %s", fault)
            for tail in self._tails.values():
                tail.fails(fault)
            self._tails.clear()
