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

#: A stream asks so often whether its key still opens it.
_KEY_SECONDS = 3.0

LastEventId = Annotated[
    str | None,
    Header(
        alias="Last-Event-ID",
        # Redis counts in 64 bits: 19 digits always fit.
        pattern=r"^(\d{1,19}(-\d{1,19})?)?$",
        description="Resume behind this event: nothing is missed, nothing comes twice.",
    ),
]


class _AllTold(Exception):
    """The job's last event is known to who asks."""


def install(app: FastAPI) -> None:
    """A browser's EventSource asks again whatever ends its stream, but for a 204."""

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
    """`status`, `step`, `preview`, `artifact`; ends with the status that ends the job.

    Ends earlier, within seconds, when the key is revoked.
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
