"""Every error of the API as ``application/problem+json`` (RFC 9457), with the remedy."""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from redis.exceptions import (
    ConnectionError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TimeoutError,
)
from starlette.exceptions import HTTPException

from dualprocess import schemas
from dualprocess.schemas import FieldError, Problem
from dualprocess.schemas.problems import NO_TEXT, field_path
from services.orchestrator.api.document import methods_at
from services.orchestrator.store.artifacts import StoreUnavailable
from services.orchestrator.store.quotas import QuotaExceeded

log = logging.getLogger(__name__)

#: A client may ask again after so many seconds while Redis is away.
RETRY_AFTER_SECONDS = 2
#: And after so many while a quota is used up: a job rarely ends sooner.
QUOTA_RETRY_AFTER_SECONDS = 10

#: Redis takes no writes. Before 7 the word stands in the midst of what it says of a script.
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
    """Ends a request with 422: each thing that is wrong, by field."""

    def __init__(self, *errors: FieldError) -> None:
        super().__init__(errors)
        self.errors = list(errors)


def install(app: FastAPI) -> None:
    """Every way a request can fail answers with a problem."""

    @app.exception_handler(ProblemError)
    async def _problem(_: Request, error: ProblemError) -> JSONResponse:
        return respond(error.problem, error.headers)

    @app.exception_handler(InvalidSpec)
    async def _spec(_: Request, error: InvalidSpec) -> JSONResponse:
        return respond(_invalid(error.errors))

    @app.exception_handler(RequestValidationError)
    async def _request(_: Request, error: RequestValidationError) -> JSONResponse:
        return respond(_invalid([_field_error(one) for one in error.errors()]))

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> JSONResponse:
        headers = dict(error.headers or {})
        # Starlette names the methods of one route; a path can have several.
        if error.status_code == 405 and (methods := methods_at(app, request.url.path)):
            headers["Allow"] = ", ".join(methods)
        return respond(Problem(status=error.status_code, title=str(error.detail)), headers)

    @app.exception_handler(QuotaExceeded)
    async def _quota(_: Request, error: QuotaExceeded) -> JSONResponse:
        return respond(_over(error), {"Retry-After": str(QUOTA_RETRY_AFTER_SECONDS)})

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
            detail="It is out of memory, can't save or is a replica; its log says which. What was "
            "accepted is kept. Ask again later.",
        )
        return respond(problem, {"Retry-After": str(RETRY_AFTER_SECONDS)})

    @app.exception_handler(Exception)
    async def _ours(_: Request, error: Exception) -> JSONResponse:
        log.exception("a request failed", exc_info=error)
        return respond(Problem(status=500, title="The server made a mistake; its log has more"))


def respond(problem: Problem, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse(
        problem.model_dump(exclude_none=True),
        status_code=problem.status,
        headers=dict(headers or {}),
        media_type="application/problem+json",
    )


def redis_is_away(error: Exception) -> JSONResponse:
    log.warning("Redis is away: %s", error)
    problem = Problem(status=503, title="Redis is away", detail="Ask again in a moment.")
    return respond(problem, {"Retry-After": str(RETRY_AFTER_SECONDS)})


def _takes_no_writes(error: ResponseError) -> bool:
    known = isinstance(error, OutOfMemoryError | ReadOnlyError)
    return known or _NO_WRITES.search(str(error)) is not None


def _over(error: QuotaExceeded) -> Problem:
    return Problem(
        status=429,
        title=f"The quota of {error.quota} jobs is used up",
        detail=f"This key may have {error.limit} {error.quota} jobs; wait until one of them goes "
        "on, cancel one, or ask for a key with a higher quota.",
    )


def _invalid(errors: list[FieldError]) -> Problem:
    detail = f"{len(errors)} field{'s' if len(errors) > 1 else ''} can't be used as sent"
    return Problem(status=422, title="The request is not valid", detail=detail, errors=errors)


def _field_error(error: Mapping[str, Any]) -> FieldError:
    """pydantic's finding as a field and a remedy."""
    where = field_path(error["loc"])
    match error["type"]:
        case "json_invalid":
            return FieldError(field="body", message=f"is not JSON: {error['ctx']['error']}")
        case "missing":
            return FieldError(field=where, message="is missing; it has no default")
        case "extra_forbidden":
            return FieldError(field=where, message=_unknown(str(error["loc"][-1])))
        case "string_too_short":
            return FieldError(field=where, message="is empty; write something here")
        case "too_short":
            return FieldError(field=where, message="is empty; at least one is needed")
        case "string_type":
            return FieldError(field=where, message=f"should be a valid string; {NO_TEXT}")
    message = str(error["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    return FieldError(field=where, message=message)


def _unknown(name: str) -> str:
    close = difflib.get_close_matches(name, _FIELD_NAMES, n=1)
    hint = f"did you mean {close[0]!r}?" if close else "leave it out"
    return f"is no field of this request; {hint}"


_REQUEST_MODELS: tuple[type[BaseModel], ...] = (
    schemas.JobSpec,
    schemas.BatchRequest,
    schemas.ImagesRequest,
    schemas.AnswersRequest,
    schemas.QuestionsRequest,
    schemas.ExpansionRequest,
    schemas.DraftQuestion,
    schemas.Question,
    schemas.VisualPrompt,
    schemas.LoraUse,
    schemas.ImageOptions,
    schemas.LoraOptions,
    schemas.LoraStart,
    schemas.OptimizerOptions,
    schemas.GuardOptions,
    schemas.EvalOptions,
    schemas.Webhook,
)
_FIELD_NAMES = sorted({field for model in _REQUEST_MODELS for field in model.model_fields})
