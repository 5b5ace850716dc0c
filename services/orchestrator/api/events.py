"""``/v1/jobs/{id}/events``: what happens to a job, as server-sent events."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncGenerator
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Header, Request, Response
from fastapi.responses import StreamingResponse
from fastapi.sse import format_sse_event
from starlette.types import Receive, Scope, Send

from services.orchestrator.api.auth import READ, Caller, CallerDep
from services.orchestrator.api.state import JobDep, State, StateDep
from services.orchestrator.store.events import Told

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

#: A stream asks so often whether its key still opens it.
_KEY_SECONDS = 3.0
#: A proxy must hold nothing back.
_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
_SIGN_OF_LIFE = format_sse_event(comment="still here")

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


class _Stream(StreamingResponse):
    """Lets go of what it listens to as soon as nobody reads it any more."""

    media_type = "text/event-stream"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert isinstance(self.body_iterator, AsyncGenerator)
        async with contextlib.aclosing(self.body_iterator):
            await super().__call__(scope, receive, send)


@router.get(
    "/{job_id}/events",
    response_class=_Stream,
    responses={204: {"description": "The job has ended, and `Last-Event-ID` is its last event."}},
    dependencies=[READ],
)
async def events(
    job: JobDep, state: StateDep, caller: CallerDep, after: Annotated[str, Depends(_after)]
) -> _Stream:
    """`status`, `step`, `preview`, `artifact`; ends with the status that ends the job.

    Ends earlier, within seconds, when the key is revoked. A `429` says that no more streams may be
    open.
    """
    return _Stream(_parts(job.id, after, state, caller), headers=_HEADERS)


async def _parts(
    job_id: str, after: str, state: State, caller: Caller
) -> AsyncGenerator[bytes, None]:
    checked = time.monotonic()
    async with contextlib.aclosing(state.following.follow(job_id, after)) as batches:
        async for batch in batches:
            if time.monotonic() - checked > _KEY_SECONDS:
                if not await state.rechecks.still_opens(caller):
                    return
                checked = time.monotonic()
            # Those that come together are sent together.
            yield b"".join(map(_framed, batch)) or _SIGN_OF_LIFE


def _framed(told: Told) -> bytes:
    return format_sse_event(id=told.id, event=told.type, data_str=told.json)
