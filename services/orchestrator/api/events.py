"""``/v1/jobs/{id}/events``: what happens to a job, as server-sent events."""

from __future__ import annotations

import time
from collections.abc import AsyncIterable
from typing import Annotated

from fastapi import APIRouter, Header
from fastapi.sse import EventSourceResponse, ServerSentEvent

from services.orchestrator.api.auth import READ, CallerDep, still_opens
from services.orchestrator.api.state import JobDep, StateDep

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

#: A stream asks so often whether its key still opens it.
_KEY_SECONDS = 3.0

LastEventId = Annotated[
    str | None,
    Header(
        alias="Last-Event-ID",
        # Redis counts in 64 bits: 19 digits always fit.
        pattern=r"^\d{1,19}(-\d{1,19})?$",
        description="Resume behind this event: nothing is missed, nothing comes twice.",
    ),
]


@router.get("/{job_id}/events", response_class=EventSourceResponse, dependencies=[READ])
async def events(
    job: JobDep, state: StateDep, caller: CallerDep, last_event_id: LastEventId = None
) -> AsyncIterable[ServerSentEvent]:
    """`status`, `step`, `preview`, `artifact`; ends with the status that ends the job.

    Ends earlier, within seconds, when the key is revoked.
    """
    checked = time.monotonic()
    async for record in state.events.follow(job.id, last_event_id or "0-0"):
        if time.monotonic() - checked > _KEY_SECONDS:
            if not await still_opens(state.api_keys, caller):
                return
            checked = time.monotonic()
        if record is None:
            yield ServerSentEvent(comment="still here")
            continue
        yield ServerSentEvent(
            id=record.id, event=record.event.type, raw_data=record.event.model_dump_json()
        )
