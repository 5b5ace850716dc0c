"""``/v1/jobs/{id}/events``: what happens to a job, as server-sent events."""

from __future__ import annotations

import time
from collections.abc import AsyncIterable
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Header, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent

from services.orchestrator.api.auth import READ, CallerDep, still_opens
from services.orchestrator.api.state import JobDep, StateDep

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

#: Seconds between two checks of whether a stream's key is still valid.
_KEY_SECONDS = 3.0

LastEventId = Annotated[
    str | None,
    Header(
        alias="Last-Event-ID",
        # Redis counts in 64 bits, which hold every number of 19 digits.
        pattern=r"^(\d{1,19}(-\d{1,19})?)?$",
        description="Go on after this event: no event is missed or comes twice.",
    ),
]


class _AllTold(Exception):
    """The caller already has the job's last event."""


def install(app: FastAPI) -> None:
    """A browser's EventSource always connects again, except after a 204."""

    @app.exception_handler(_AllTold)
    async def _all_told(_: Request, __: Exception) -> Response:
        return Response(status_code=204)


async def _after(job: JobDep, state: StateDep, last_event_id: LastEventId = None) -> str:
    if last_event_id and await state.events.is_over(job.id, last_event_id):
        raise _AllTold
    return last_event_id or "0-0"


@router.get(
    "/{job_id}/events",
    response_class=EventSourceResponse,
    responses={204: {"description": "The job has ended, and `Last-Event-ID` is its last event."}},
    dependencies=[READ],
)
async def events(
    job: JobDep, state: StateDep, caller: CallerDep, after: Annotated[str, Depends(_after)]
) -> AsyncIterable[ServerSentEvent]:
    """Events like `status`, `step`, `preview` and `artifact`; the stream ends with the status that
    ends the job.

    If the key is revoked, it ends within seconds.
    """
    checked = time.monotonic()
    async for record in state.events.follow(job.id, after):
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
