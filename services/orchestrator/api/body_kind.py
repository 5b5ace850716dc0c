"""Refuses bodies that are compressed or not declared as JSON, before anything reads them; and
requests that would change something and could come from any web page."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from dualprocess.schemas import Problem
from services.orchestrator.api.document import methods_at
from services.orchestrator.api.problems import respond
from services.orchestrator.route_path import route_path
from services.orchestrator.ui import paths

_Fault = tuple[str, str, dict[str, str]]

#: Methods that change nothing.
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
#: A page of another origin can send this header, or JSON's type, only if ``cors_origins`` allows
#: its origin.
_HEADER = "X-Requested-With"
_UNTOLD: _Fault = (
    "The request must say that no web page sent it",
    f"Send the header {_HEADER}, with any value, like {_HEADER}: curl; or send JSON with "
    "Content-Type: application/json. This service needs no key, so it must know that the request "
    "is not from a page of another origin: such a page can send neither header.",
    {"Accept": "application/json"},
)


class JsonBodies:
    """ASGI middleware: 415 for such a body of a request to ``/v1``.

    If no ``keys`` are needed, also for a request that would change something and has neither JSON's
    type nor the header.
    """

    def __init__(self, app: ASGIApp, *, keys: bool) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            fault = self._fault(scope)
            if fault is not None:
                title, detail, headers = fault
                problem = Problem(status=415, title=title, detail=detail)
                await respond(problem, headers)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _fault(self, scope: Scope) -> _Fault | None:
        path, headers = route_path(scope), Headers(scope=scope)
        fault = _fault(headers) if path.startswith("/v1/") else None
        if fault or self._keys or scope["method"] in _SAFE or _tells(headers):
            return fault
        # A method that the route does not have gets its own refusal.
        changes = paths.is_work(path) or scope["method"] in methods_at(scope["app"], path)
        return _UNTOLD if changes else None


def _tells(headers: Headers) -> bool:
    return bool(headers.get(_HEADER)) or _is_json(headers)


def _fault(headers: Headers) -> _Fault | None:
    if headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers:
        return None
    encoding = headers.get("content-encoding", "").strip().lower()
    if encoding not in ("", "identity"):
        return (
            "The body is compressed",
            f"Content-Encoding is {encoding[:40]!r}; send the JSON uncompressed, without this "
            "header.",
            {"Accept-Encoding": "identity"},
        )
    if _is_json(headers):
        return None
    kind = _kind(headers)
    what = f"is {kind[:60]!r}" if kind else "is missing"
    return (
        "The body must be declared as JSON",
        f"Content-Type {what}; send JSON and the header Content-Type: application/json.",
        {"Accept": "application/json"},
    )


def _kind(headers: Headers) -> str:
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def _is_json(headers: Headers) -> bool:
    kind = _kind(headers)
    return kind == "application/json" or (
        kind.startswith("application/") and kind.endswith("+json")
    )
