"""A job's events: a Redis stream, read from any place onwards."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias, get_args

from pydantic import TypeAdapter, ValidationError

from dualprocess.schemas import AnyStepEvent, Event, StatusEvent, WarningEvent
from services.orchestrator.store import redis as keys
from services.orchestrator.store.newer import KnownParts

_EVENT: TypeAdapter[Event] = TypeAdapter(Event)
_KINDS: Mapping[str, type[Event]] = {
    model.model_fields["type"].default: model for model in get_args(get_args(Event)[0])
}

#: The place of an event among those of its job.
Place: TypeAlias = tuple[int, int]
#: An event as Redis has it: its id and its fields.
Entry: TypeAlias = tuple[str, dict[str, str]]


@dataclass(frozen=True)
class Told:
    """An event as it is sent: made once, for any number of listeners."""

    id: str
    type: str
    json: str
    #: Whether it ends the job, and so the stream.
    is_end: bool

    @cached_property
    def place(self) -> Place:
        return place_of(self.id)


class Events:
    def __init__(self, redis: keys.Client) -> None:
        self._redis = redis

    async def behind(self, job_id: str, last: str, *, count: int) -> list[Told]:
        """The next events after ``last``, at most ``count``."""
        entries = await self._redis.xrange(keys.events_key(job_id), min=f"({last}", count=count)
        return [told(*entry) for entry in entries]

    async def newest(self, job_ids: Collection[str]) -> dict[str, Entry | None]:
        """Job id → its newest event; ``None`` if the job was deleted."""
        async with self._redis.pipeline(transaction=False) as pipe:
            for job_id in job_ids:
                pipe.xrevrange(keys.events_key(job_id), count=1)
            found = await pipe.execute()
        return {
            job_id: entries[0] if entries else None
            for job_id, entries in zip(job_ids, found, strict=True)
        }

    async def news(
        self, last: Mapping[str, str], *, count: int, block_ms: int
    ) -> dict[str, list[Entry]]:
        """Job id → its next events after the last known one, at most ``count`` for each job.

        Waits at most ``block_ms`` for the first event.
        """
        jobs = {keys.events_key(job_id): job_id for job_id in last}
        answer = await self._redis.xread(
            {key: last[job_id] for key, job_id in jobs.items()}, count=count, block=block_ms
        )
        return {jobs[key]: entries for key, entries in answer}

    async def gone(self, job_ids: Collection[str]) -> list[str]:
        """Those of these jobs that have no events in Redis, since they were deleted."""
        async with self._redis.pipeline(transaction=False) as pipe:
            for job_id in job_ids:
                pipe.exists(keys.events_key(job_id))
            there = await pipe.execute()
        return [job_id for job_id, is_there in zip(job_ids, there, strict=True) if not is_there]

    async def steps(self, job_id: str, until: int) -> list[AnyStepEvent]:
        """Each step up to ``until`` once, in order, as the last attempt recorded it."""
        entries = await self._redis.xrange(keys.events_key(job_id))
        events = [_event(fields) for _, fields in entries]
        steps = {event.step: event for event in events if isinstance(event, AnyStepEvent)}
        return [steps[step] for step in sorted(steps) if step <= until]

    async def is_over(self, job_id: str, last: str) -> bool:
        """No event can come any more: the job's last one was read, or the job is gone."""
        entry = (await self.newest([job_id]))[job_id]
        if entry is None:
            return True
        newest = told(*entry)
        return newest.is_end and newest.place <= place_of(last)


def told(entry_id: str, fields: Mapping[str, str]) -> Told:
    event = _event(fields)
    is_end = isinstance(event, StatusEvent) and event.status.is_final
    return Told(entry_id, event.type, event.model_dump_json(), is_end)


def place_of(entry_id: str) -> Place:
    milliseconds, _, sequence = entry_id.partition("-")
    return int(milliseconds), int(sequence or 0)


def _event(fields: Mapping[str, str]) -> Event:
    """What a newer version recorded is read as far as this one knows it."""
    text = fields["event"]
    try:
        return _EVENT.validate_json(text)
    except ValidationError:
        kind = str(json.loads(text).get("type"))
    with contextlib.suppress(KeyError, ValidationError):
        return KnownParts().read(_KINDS[kind], text, kind)
    return WarningEvent(
        message=f"A newer version of the service recorded an event here ({kind[:40]}) that this "
        "one can't show."
    )
