"""One reader of Redis for all who listen to jobs, however many they are."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import AsyncGenerator, Iterator, Sequence

from pydantic import ValidationError
from redis.exceptions import ConnectionError

from services.orchestrator.following.tail import Tail
from services.orchestrator.store import redis as keys
from services.orchestrator.store.events import Events, Told, told

log = logging.getLogger(__name__)

#: How long one read waits for news, and so a job that nobody listened to yet for the next one.
_BLOCK_MS = 100
#: Between reads that bring something: events that come together are read together.
_PAUSE_SECONDS = 0.01
#: More for each job, since a read names them all.
_PAUSE_SECONDS_A_JOB = 0.00005
#: Of one job, in one read.
_BATCH = 16
#: Between looks whether silent jobs are still there, and between signs of life.
_QUIET_SECONDS = 5.0
#: Who is behind the tail reads Redis, so many at once: the other connections are everyone's.
_CATCHING_UP = 8


class Following:
    """Tells of jobs what happens to them. ``close`` it before its Redis."""

    def __init__(self, redis: keys.Client) -> None:
        self._events = Events(redis)
        #: Of the jobs that somebody listens to.
        self._tails: dict[str, Tail] = {}
        self._reading: asyncio.Task[None] | None = None
        self._catching_up = asyncio.Semaphore(_CATCHING_UP)

    async def close(self) -> None:
        """Ends the reading, and so whatever still listens."""
        for tail in self._tails.values():
            tail.fails(ConnectionError("the server is stopping"))
        self._tails.clear()
        if self._reading is not None:
            await asyncio.wait([self._reading])

    async def follow(
        self, job_id: str, after: str = "0-0", *, seconds: float = math.inf
    ) -> AsyncGenerator[list[Told], None]:
        """Every event behind ``after`` once, in order, as they come, up to the one that ends the
        job.

        Yields an empty list now and then while nothing happens. Ends where ``after`` is already the
        end, when the job is deleted, and after ``seconds``. Raises ``ConnectionError`` when Redis
        is lost.
        """
        end = time.monotonic() + seconds
        last = after
        with self._listening(job_id) as tail:
            while (left := end - time.monotonic()) > 0:
                # Before the look: a change behind it is no change missed.
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
        """For as long as somebody listens."""
        looked = time.monotonic()
        while self._tails:
            await self._begin([job_id for job_id, tail in self._tails.items() if not tail.last])
            if time.monotonic() - looked > _QUIET_SECONDS:
                looked = time.monotonic()
                await self._look_for_gone()
            known = {job_id: tail.last for job_id, tail in self._tails.items() if tail.last}
            if not known:
                # Jobs that are gone, until those who listen know.
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            news = await self._events.news(known, count=_BATCH, block_ms=_BLOCK_MS)
            for job_id, entries in news.items():
                # Left, or left and come again, meanwhile: then it begins anew.
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
        """A job's event that can't be read is nothing to the other jobs."""
        try:
            yield
        except ValidationError as error:
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
