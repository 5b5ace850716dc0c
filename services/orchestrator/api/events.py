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

#: Seconds between two checks of whether a stream's key is still valid.
_KEY_SECONDS = 3.0
#: A proxy must not buffer events.
_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
_SIGN_OF_LIFE = format_sse_event(comment="still here")

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


class _Stream(StreamingResponse):
    """Stops listening to the job as soon as nobody reads the stream any more."""

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
    """Events like `status`, `step`, `preview` and `artifact`; the stream ends with the status that
    ends the job.

    If the key is revoked, it ends within seconds. A `429` says that no more streams may be open.
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
            # Events that come together are sent together.
            yield b"".join(map(_framed, batch)) or _SIGN_OF_LIFE


def _framed(told: Told) -> bytes:
    return format_sse_event(id=told.id, event=told.type, data_str=told.json)
