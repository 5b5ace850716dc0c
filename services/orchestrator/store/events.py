"""A job's events: a Redis stream, read from any place onwards."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator

from pydantic import TypeAdapter

from dualprocess.schemas import AnyStepEvent, Event, EventRecord, StatusEvent
from services.orchestrator.store import redis as keys

_EVENT: TypeAdapter[Event] = TypeAdapter(Event)

#: How long one read waits for events.
_BLOCK_MS = 5_000
_BATCH = 200


class Events:
    def __init__(self, redis: keys.Client) -> None:
        self._redis = redis

    async def follow(
        self, job_id: str, after: str = "0-0", *, seconds: float = math.inf
    ) -> AsyncIterator[EventRecord | None]:
        """Every event behind ``after``, as it comes, up to the one that ends the job.

        Yields ``None`` now and then while nothing happens. Ends at once where ``after`` is
        already the end, and after ``seconds``.
        """
        last = after
        if after != "0-0" and await self.is_over(job_id, after):
            return
        end = time.monotonic() + seconds
        # Measures the time itself, since redis-py can lose a cancel, and with it a caller's
        # timeout.
        while (left := end - time.monotonic()) > 0:
            block = max(1, min(_BLOCK_MS, left * 1000))
            answer = await self._redis.xread(
                {keys.events_key(job_id): last}, count=_BATCH, block=int(block)
            )
            # Parsed one by one, since a slow reader keeps a whole batch in memory.
            entries = [entry for _, of_stream in answer for entry in of_stream]
            if not entries:
                if await self.is_over(job_id, last):
                    return
                yield None
            for entry in entries:
                record = _record(*entry)
                last = record.id
                yield record
                if isinstance(record.event, StatusEvent) and record.event.status.is_final:
                    return

    async def steps(self, job_id: str, until: int) -> list[AnyStepEvent]:
        """Each step up to ``until`` once, in order, as the last attempt recorded it."""
        entries = await self._redis.xrange(keys.events_key(job_id))
        told = [_record(*entry).event for entry in entries]
        steps = {event.step: event for event in told if isinstance(event, AnyStepEvent)}
        return [steps[step] for step in sorted(steps) if step <= until]

    async def is_over(self, job_id: str, last: str) -> bool:
        """No event can come any more: the job's last one was read, or the job is gone."""
        newest = await self._redis.xrevrange(keys.events_key(job_id), count=1)
        if not newest:
            return True
        record = _record(*newest[0])
        is_end = isinstance(record.event, StatusEvent) and record.event.status.is_final
        return is_end and _place(record.id) <= _place(last)


def _record(entry_id: str, fields: dict[str, str]) -> EventRecord:
    return EventRecord(id=entry_id, event=_EVENT.validate_json(fields["event"]))


def _place(entry_id: str) -> tuple[int, int]:
    milliseconds, _, sequence = entry_id.partition("-")
    return int(milliseconds), int(sequence or 0)
