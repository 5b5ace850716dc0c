"""Reads a job's events from its stream in Redis, without the API."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import TypeAdapter

from dualprocess.schemas import Event, JobStatus, StatusEvent, StepEvent
from services.orchestrator.store import redis as keys

_EVENT: TypeAdapter[Event] = TypeAdapter(Event)


@dataclass(frozen=True)
class Told:
    """``ends`` counts final status events, ``resumed`` attempts that continued from a checkpoint;
    ``repeated`` has the events that one attempt sent twice."""

    ids: Sequence[str]
    ends: int
    resumed: int
    repeated: Sequence[str]

    def place(self, entry_id: str) -> int:
        """The place of an event in the stream; -1 if it is not there."""
        return self.ids.index(entry_id) if entry_id in self.ids else -1


async def told(redis: keys.Client, job_id: str) -> Told:
    entries = await redis.xrange(keys.events_key(job_id))
    ends, resumed, repeated = 0, 0, list[str]()
    of_attempt = set[str]()
    for _, fields in entries:
        event = _EVENT.validate_json(text := fields["event"])
        if isinstance(event, StatusEvent):
            ends += event.status.is_final
            if event.status == JobStatus.QUEUED:
                of_attempt.clear()
            continue
        if isinstance(event, StepEvent) and event.step > 1:
            resumed += not of_attempt
        # Timings and hashes make each event of an attempt different.
        if text in of_attempt:
            repeated.append(text)
        of_attempt.add(text)
    return Told([entry_id for entry_id, _ in entries], ends, resumed, repeated)
