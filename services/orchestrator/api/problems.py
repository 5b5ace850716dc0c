"""Every error of the API as ``application/problem+json`` (RFC 9457), with the remedy."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from redis.exceptions import (
    AuthenticationError,
    ConnectionError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TimeoutError,
)
from starlette.exceptions import HTTPException

from dualprocess.schemas import FieldError, Problem
from dualprocess.schemas.faults import MAX_FAULTS, field_errors
from services.common import trail
from services.orchestrator.api.document import methods_at
from services.orchestrator.api.request_id import HEADER
from services.orchestrator.following.places import NoPlace
from services.orchestrator.route_path import route_path
from services.orchestrator.store.artifacts import StoreUnavailable
from services.orchestrator.store.newer import UnreadableJob
from services.orchestrator.store.quotas import QuotaExceeded

log = logging.getLogger(__name__)

#: Seconds after which a client may ask again while Redis is away.
RETRY_AFTER_SECONDS = 2
#: The same while a quota is used up: a job rarely ends sooner.
QUOTA_RETRY_AFTER_SECONDS = 10
#: The same while too many event streams are open.
PLACE_RETRY_AFTER_SECONDS = 5

#: The longest sentence; a sentence can repeat a part of the request.
_CHARACTERS = 1000

#: Redis takes no writes. Before Redis 7 this word is in the middle of an error about a script.
_NO_WRITES = re.compile(r"\b(?:OOM|MISCONF|READONLY)\b")


class ProblemError(Exception):
    """Ends a request with a problem."""

    def __init__(
        self,
        status: int,
        title: str,
        detail: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(title)
        self.problem = Problem(status=status, title=title, detail=detail)
        self.headers = headers


class InvalidSpec(Exception):
    """Ends a request with 422: the faults, each with its field, and how many ``more`` there are."""

    def __init__(self, *errors: FieldError, more: int = 0) -> None:
        super().__init__(errors)
        self.errors = list(errors)
        self.more = more


def install(app: FastAPI) -> None:
    """Every way a request can fail answers with a problem."""

    @app.exception_handler(ProblemError)
    async def _problem(_: Request, error: ProblemError) -> JSONResponse:
        return respond(error.problem, error.headers)

    @app.exception_handler(InvalidSpec)
    async def _spec(_: Request, error: InvalidSpec) -> JSONResponse:
        return respond(_invalid(error.errors, error.more))

    @app.exception_handler(RequestValidationError)
    async def _request(_: Request, error: RequestValidationError) -> JSONResponse:
        return respond(_invalid(field_errors(error.errors())))

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> JSONResponse:
        headers = dict(error.headers or {})
        # Starlette names the methods of one route; a path can have several.
        if error.status_code == 405 and (methods := methods_at(app, route_path(request.scope))):
            headers["Allow"] = ", ".join(methods)
        return respond(Problem(status=error.status_code, title=str(error.detail)), headers)

    @app.exception_handler(QuotaExceeded)
    async def _quota(_: Request, error: QuotaExceeded) -> JSONResponse:
        return respond(over(error), {"Retry-After": str(QUOTA_RETRY_AFTER_SECONDS)})

    @app.exception_handler(NoPlace)
    async def _full(_: Request, error: NoPlace) -> JSONResponse:
        return respond_full(error)

    @app.exception_handler(UnreadableJob)
    async def _newer(_: Request, error: UnreadableJob) -> JSONResponse:
        title = f"Job {error.job_id} was stored by a newer version of the service"
        detail = "This version can't read it. Upgrade this service, or ask one of that version."
        return respond(Problem(status=501, title=title, detail=detail))

    @app.exception_handler(StoreUnavailable)
    async def _store(_: Request, error: StoreUnavailable) -> JSONResponse:
        problem = Problem(
            status=503,
            title="The artifact store is full or away",
            detail=f"{error}. Ask again when it is back.",
        )
        return respond(problem, {"Retry-After": str(RETRY_AFTER_SECONDS)})

    async def _away(_: Request, error: Exception) -> JSONResponse:
        return redis_is_away(error)

    for kind in (ConnectionError, TimeoutError):
        app.add_exception_handler(kind, _away)

    @app.exception_handler(ResponseError)
    async def _refused(_: Request, error: ResponseError) -> JSONResponse:
        if not _takes_no_writes(error):
            raise error
        log.warning("Redis takes no writes: %s", error)
        problem = Problem(
            status=503,
            title="Redis takes no writes",
            detail="Redis is full, cannot save, or is read-only; its log says which. Accepted "
            "jobs are kept. Ask again later.",
        )
        return respond(problem, {"Retry-After": str(RETRY_AFTER_SECONDS)})

    @app.exception_handler(Exception)
    async def _ours(_: Request, error: Exception) -> JSONResponse:
        log.exception("a request failed", exc_info=error)
        return respond(Problem(status=500, title="The server made a mistake; its log has more"))


def respond(problem: Problem, headers: Mapping[str, str] | None = None) -> JSONResponse:
    shown = problem.model_copy(
        update={
            "title": _cut(problem.title),
            "detail": problem.detail and _cut(problem.detail),
            "request_id": trail.current().request or None,
        }
    )
    return JSONResponse(
        shown.model_dump(exclude_none=True),
        status_code=problem.status,
        headers={**(headers or {}), **_with_id(shown)},
        media_type="application/problem+json",
    )


def _with_id(problem: Problem) -> dict[str, str]:
    """What answers a request that broke is outside of all middleware."""
    return {HEADER: problem.request_id} if problem.request_id else {}


def redis_is_away(error: Exception) -> JSONResponse:
    if isinstance(error, AuthenticationError):
        log.error("Redis refuses this service's user or password: %s", error)
        title = "Redis refuses this service"
        detail = "Whoever runs the service must correct the address of Redis."
    else:
        log.warning("Redis is away: %s", error)
        title, detail = "Redis is away", "Ask again in a moment."
    problem = Problem(status=503, title=title, detail=detail)
    return respond(problem, {"Retry-After": str(RETRY_AFTER_SECONDS)})


def _takes_no_writes(error: ResponseError) -> bool:
    known = isinstance(error, OutOfMemoryError | ReadOnlyError)
    return known or _NO_WRITES.search(str(error)) is not None


def over(error: QuotaExceeded) -> Problem:
    """The answer for a key that would have too many jobs."""
    return Problem(
        status=429,
        title=f"The quota of {error.quota} jobs is used up",
        detail=f"This key may have {error.limit} {error.quota} jobs; wait until one of them "
        "leaves this state, cancel one, or ask for a key with a higher quota.",
    )


def respond_full(error: NoPlace) -> JSONResponse:
    whose = "this key" if error.of_key else "this server"
    remedy = "Close one" if error.of_key else "Whoever runs the service can raise --streams"
    problem = Problem(
        status=429,
        title=f"All event streams of {whose} are taken",
        detail=f"At most {error.limit:,} may be open at once; requests that wait for their job "
        f"count as well. {remedy}; or read GET /v1/jobs/{{id}} from time to time, and send `wait`: "
        "0 in requests.",
    )
    # A refused client must not keep its connection, since connections are limited as well.
    headers = {"Retry-After": str(PLACE_RETRY_AFTER_SECONDS), "Connection": "close"}
    return respond(problem, headers)


def _invalid(errors: list[FieldError], more: int = 0) -> Problem:
    """The problem with the first faults only, whose messages are cut if they are long."""
    count = len(errors) + more
    detail = f"{count:,} field{'s' if count > 1 else ''} can't be used as sent"
    if count > MAX_FAULTS:
        detail += f"; these are the first {min(len(errors), MAX_FAULTS)}; correct them first"
    shown = [FieldError(field=one.field, message=_cut(one.message)) for one in errors[:MAX_FAULTS]]
    return Problem(status=422, title="The request is not valid", detail=detail, errors=shown)


def _cut(text: str) -> str:
    return text if len(text) <= _CHARACTERS else f"{text[: _CHARACTERS - 1]}…"
