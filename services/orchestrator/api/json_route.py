"""Routes that parse and check bodies, and write answers, outside of the event loop."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.types import Receive, Scope

from dualprocess.schemas import FieldError
from dualprocess.schemas.faults import MAX_FAULTS, field_errors
from services.orchestrator.api.json_body import JsonBody
from services.orchestrator.api.problems import InvalidSpec
from services.orchestrator.json_outline import TooMuch

#: The most fields of one object. The largest object of any request has 32.
MAX_NAMES = 100
#: Threads of their own, and few of them: they share the interpreter with the event loop.
_READERS = ThreadPoolExecutor(2, "bodies")
#: More faults than these take long to list; then only the first items of each list are checked.
_MANY_FAULTS = 1000

_Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class JsonRoute(APIRoute):
    """FastAPI's route; FastAPI itself would do all of this on the event loop."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, self._written(endpoint), **options)

    def _written(self, endpoint: Callable[..., Any]) -> Callable[..., Any]:
        """The endpoint, which now returns a response instead of a model."""
        if not inspect.iscoroutinefunction(endpoint):
            return endpoint

        @functools.wraps(endpoint)
        async def written(*args: Any, **values: Any) -> Any:
            returned = await endpoint(*args, **values)
            if not isinstance(returned, BaseModel) or self.response_field is None:
                return returned
            content = await asyncio.to_thread(self.response_field.serialize_json, returned)
            answer = Response(content, self.status_code or 200, media_type="application/json")
            changed = values.get("response")
            if isinstance(changed, Response):
                answer.headers.raw.extend(changed.headers.raw)
                answer.status_code = changed.status_code or answer.status_code
            return answer

        return written

    def get_route_handler(self) -> _Handler:
        handle = super().get_route_handler()
        if self.body_field is None:
            return handle
        adapter: TypeAdapter[Any] = TypeAdapter(cast(Any, self.body_field.field_info.annotation))

        async def read_first(request: Request) -> Response:
            body = await _whole(request)
            if body.is_empty:
                return await handle(_Read(request.scope, request.receive, b"", None))
            loop = asyncio.get_running_loop()
            try:
                value = await loop.run_in_executor(_READERS, _checked, body, adapter)
            except InvalidSpec as error:
                faults = error
            else:
                return await handle(_Read(request.scope, request.receive, b"{}", value))
            # Checks of keys and headers come first. If they pass, one answer has all faults.
            refused = _Read(request.scope, request.receive, b"{}", _NO_REQUEST)
            try:
                return await handle(refused)
            except RequestValidationError as error:
                others = [one for one in error.errors() if one["loc"][0] != "body"]
                raise InvalidSpec(
                    *faults.errors, *field_errors(others), more=faults.more
                ) from error

        return read_first


#: A body that no model accepts.
_NO_REQUEST = False


class _Read(Request):
    """A request whose body was parsed already."""

    def __init__(self, scope: Scope, receive: Receive, body: bytes, value: Any) -> None:
        super().__init__(scope, receive)
        self._read = body, value

    async def body(self) -> bytes:
        return self._read[0]

    async def json(self) -> Any:
        return self._read[1]


async def _whole(request: Request) -> JsonBody:
    """The body. Raises ``InvalidSpec`` only after all of it came, since a client that is still
    sending does not read answers."""
    body = JsonBody()
    fault: TooMuch | None = None
    async for piece in request.stream():
        if fault is None:
            try:
                body.add(piece)
            except TooMuch as error:
                fault, body = error, JsonBody()
    if fault is not None:
        raise InvalidSpec(FieldError(field="body", message=str(fault)))
    return body


def _checked(body: JsonBody, adapter: TypeAdapter[Any]) -> Any:
    """The parsed and checked body. Raises ``InvalidSpec``."""
    try:
        value = body.read()
    except ValueError as error:
        raise InvalidSpec(FieldError(field="body", message=f"is not JSON: {error}")) from error
    if fault := next(_crowded(value), None):
        raise InvalidSpec(fault)
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        faults = _few(value, adapter, error).errors(include_url=False, include_input=False)
        shown = field_errors(faults[:MAX_FAULTS])
        raise InvalidSpec(*shown, more=error.error_count() - len(shown)) from error


def _crowded(value: Any, place: str = "") -> Iterator[FieldError]:
    """A fault for each object with too many fields."""
    if isinstance(value, dict):
        if len(value) > MAX_NAMES:
            message = (
                f"has {len(value):,} fields; no part of a request may have more than {MAX_NAMES}"
            )
            yield FieldError(field=place or "body", message=message)
            return
        parts: Any = value.items()
    else:
        parts = enumerate(value) if isinstance(value, list) else ()
    for name, part in parts:
        if isinstance(part, dict | list):
            yield from _crowded(part, f"{place}.{name}" if place else str(name))


def _few(value: Any, adapter: TypeAdapter[Any], error: ValidationError) -> ValidationError:
    """The error; or one with fewer faults, if there are so many that listing them takes long."""
    items = 1
    while error.error_count() > _MANY_FAULTS:
        try:
            adapter.validate_python(_cut(value, items))
        except ValidationError as found:
            if found.error_count() >= MAX_FAULTS:
                return found
        items *= 2
    return error


def _cut(value: Any, items: int) -> Any:
    """The value with at most ``items`` items of each list."""
    if isinstance(value, dict):
        return {name: _cut(part, items) for name, part in value.items()}
    return [_cut(part, items) for part in value[:items]] if isinstance(value, list) else value
