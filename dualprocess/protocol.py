"""What both clients share: requests, retries, errors, streams.

Nothing here reads a socket or sleeps. ``Client`` and ``AsyncClient`` do that.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Generic, TypeVar

import httpx
from httpx_sse import ServerSentEvent
from pydantic import BaseModel, TypeAdapter, ValidationError

from dualprocess.connection import bearer, shown
from dualprocess.errors import (
    ApiError,
    Conflict,
    ConnectionFailed,
    InvalidRequest,
    InvalidSetup,
    JobCancelled,
    JobFailed,
    NotFound,
    RateLimited,
    ServiceUnavailable,
    Unauthorized,
)
from dualprocess.schemas import Event, EventRecord, Job, JobStatus, Problem, StatusEvent

DEFAULT_URL = "http://127.0.0.1:8000"

#: Pauses between tries while the service is away; after the last one the error is raised.
RETRY_SECONDS = (0.2, 0.5, 1.0, 2.0, 4.0)
#: If the service asks for a longer pause than this, the error is raised at once.
LONGEST_PAUSE_SECONDS = 30.0

#: The errors that a try can end with; ``Tries.pause`` decides after which of them to try again.
FAILURES = (httpx.TransportError, ApiError)

log = logging.getLogger(__name__)

_EVENT: TypeAdapter[Event] = TypeAdapter(Event)

_ERRORS: dict[int, type[ApiError]] = {
    400: InvalidRequest,
    401: Unauthorized,
    403: Unauthorized,
    404: NotFound,
    409: Conflict,
    410: NotFound,
    413: InvalidRequest,
    415: InvalidRequest,
    421: InvalidRequest,
    422: InvalidRequest,
    429: RateLimited,
    502: ServiceUnavailable,
    503: ServiceUnavailable,
    504: ServiceUnavailable,
}

ResultT = TypeVar("ResultT")
ModelT = TypeVar("ModelT", bound=BaseModel)


def answer(model: type[ModelT]) -> Callable[[bytes], ModelT]:
    """Reads an answer. A newer service may send fields that are unknown here; they are ignored."""
    return partial(model.model_validate_json, extra="ignore")


@dataclass(frozen=True)
class Call(Generic[ResultT]):
    """One request, and how to read its answer."""

    method: str
    path: str
    read: Callable[[bytes], ResultT]
    #: As ``httpx.Client.request`` takes them.
    options: dict[str, Any] = field(default_factory=dict)
    #: Whether the request may be sent again when it is not known if it arrived.
    repeat: bool = True

    def result(self, response: httpx.Response) -> ResultT:
        """The result in a complete answer. Raises an ``ApiError``."""
        if response.is_error:
            raise api_error(response)
        try:
            return self.read(response.content)
        except ValidationError as error:
            problem = Problem(
                title="The answer does not come from this service",
                status=response.status_code,
                detail=f"{self.method} {self.path} was answered by something else; check the "
                "service's address.",
            )
            raise ApiError(problem) from error


def headers(api_key: str | None) -> dict[str, str]:
    """The headers of every request: one that says that no web page sent it, and the key, which
    defaults to the one in the environment; an empty one is none.

    Raises ``InvalidSetup``, whose message never repeats the key.
    """
    given = os.environ.get("DUALPROCESS_API_KEY") if api_key is None else api_key
    key = bearer(given)
    return {"X-Requested-With": "dualprocess", **key}


def api_error(response: httpx.Response) -> ApiError:
    """The error for a complete answer that is a refusal."""
    try:
        problem = answer(Problem)(response.content)
    except ValidationError:
        # Something else than the service answered, like a proxy.
        at = f"{response.url.scheme}://{response.url.netloc.decode('ascii')}"
        problem = Problem(
            title=f"HTTP status {response.status_code}",
            status=response.status_code,
            detail="The answer does not come from a dualprocess service. Check the service's "
            f"address; the request went to {at}. If a proxy is in front of the service, check that "
            "as well.",
        )
    header = response.headers.get("Retry-After", "")
    retry_after = float(header) if header.isdecimal() else None
    return _ERRORS.get(response.status_code, ApiError)(problem, retry_after=retry_after)


class Tries:
    """How often one call to ``url`` is tried, and how long the pauses are.

    A ``stream`` is tried again as long as the service answers that too many streams are open: when
    another one ends, there is a place. No event is missed meanwhile.
    """

    def __init__(self, url: str, *, repeat: bool = True, stream: bool = False) -> None:
        self._url = shown(url)
        self._repeat = repeat
        self._stream = stream
        self._failed = 0
        self._told = False

    def answered(self, response: httpx.Response) -> None:
        """A stream began: earlier failures no longer count, even if it has no events."""
        if response.headers.get("Content-Type", "").startswith("text/event-stream"):
            self._failed = 0

    @property
    def breath(self) -> float:
        """Seconds before the next connection, if there was no failure."""
        return RETRY_SECONDS[0]

    def pause(self, error: httpx.TransportError | ApiError) -> float:
        """Seconds before the next try. Raises the error for the caller if there is no next try."""
        if isinstance(error, httpx.LocalProtocolError):
            # Without the cause: it repeats a header, which may hold the key.
            raise InvalidSetup(
                "the request can't be sent: an id or key in its headers has a line break or "
                "another character that no header can carry"
            ) from None
        if self._stream and isinstance(error, RateLimited):
            return self._until_free(error)
        away = isinstance(error, (httpx.TransportError, ServiceUnavailable))
        asked = error.retry_after if isinstance(error, ApiError) else None
        patient = asked is None or asked <= LONGEST_PAUSE_SECONDS
        if self._repeat and away and patient and self._failed < len(RETRY_SECONDS):
            self._failed += 1
            return RETRY_SECONDS[self._failed - 1] if asked is None else asked
        if isinstance(error, ApiError):
            raise error
        arrived = not self._repeat and not isinstance(error, httpx.ConnectError)
        again = ". The request may have arrived, so it was not sent again" if arrived else ""
        raise ConnectionFailed(
            f"nobody answers at {self._url} ({error}); start the service with `dualprocess up`, "
            f"or check its address{again}"
        ) from error

    def _until_free(self, error: RateLimited) -> float:
        if not self._told:
            self._told = True
            log.warning("%s The client asks again until it gets its stream.", error)
        asked = RETRY_SECONDS[-1] if error.retry_after is None else error.retry_after
        return min(max(asked, self.breath), LONGEST_PAUSE_SECONDS)


class EventStream:
    """A job's events over as many connections as needed: no event is missed or comes twice."""

    def __init__(self, job_id: str, last_event_id: str | None) -> None:
        self.path = f"/v1/jobs/{job_id}/events"
        #: Whether no event can follow those that were taken.
        self.ended = False
        self._last_event_id = last_event_id
        self._job_had_ended = False
        self._brought_something = False

    def headers(self) -> dict[str, str]:
        """The headers of the next connection."""
        return {"Last-Event-ID": self._last_event_id} if self._last_event_id else {}

    def begins(self, response: httpx.Response) -> bool:
        """Whether the answer is a stream; it must not be a refusal. After a job's last event there
        is none."""
        self.ended = response.status_code == httpx.codes.NO_CONTENT
        return not self.ended

    def take(self, sent: ServerSentEvent) -> EventRecord | None:
        """The event. ``None`` for a keep-alive, and for a kind of event that only a newer service
        has."""
        if not sent.data:
            return None
        event = _event(sent.data)
        self._last_event_id = sent.id
        self._brought_something = True
        self.ended = isinstance(event, StatusEvent) and event.status.is_final
        return EventRecord(id=sent.id, event=event) if event else None

    def is_all(self, job: Job) -> bool:
        """Whether nothing can follow the connection that just ended; ``job`` was read after it.

        A server that loses Redis, or is stopped, ends a connection early, and the job may end
        meanwhile. So only a connection that began after the job's end and had no events is the
        last.
        """
        is_last = self._job_had_ended and not self._brought_something
        self._job_had_ended, self._brought_something = job.status.is_final, False
        return is_last


def _event(data: str) -> Event | None:
    try:
        return _EVENT.validate_json(data, extra="ignore")
    except ValidationError as error:
        if [one["type"] for one in error.errors()] == ["union_tag_invalid"]:
            return None
        raise


@contextmanager
def appearing(target: Path) -> Iterator[BinaryIO]:
    """A file to write, which appears as ``target`` only when it is complete."""
    part = target.with_name(f".{target.name}.part")
    try:
        with part.open("wb") as file:
            yield file
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def succeeded(job: Job) -> Job:
    """The job, which has ended. Raises ``JobFailed`` or ``JobCancelled``."""
    if job.status == JobStatus.FAILED:
        raise JobFailed(job)
    if job.status == JobStatus.CANCELLED:
        raise JobCancelled(job)
    return job
