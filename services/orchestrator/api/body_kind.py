"""Refuses bodies that are compressed or not declared as JSON, before anything reads them."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from dualprocess.schemas import Problem
from services.orchestrator.api.problems import respond
from services.orchestrator.route_path import route_path


class JsonBodies:
    """ASGI middleware: 415 for such a body of a request to ``/v1``."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and route_path(scope).startswith("/v1/"):
            fault = _fault(Headers(scope=scope))
            if fault is not None:
                title, detail, headers = fault
                problem = Problem(status=415, title=title, detail=detail)
                await respond(problem, headers)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _fault(headers: Headers) -> tuple[str, str, dict[str, str]] | None:
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
    sent = headers.get("content-type", "")
    kind = sent.partition(";")[0].strip().lower()
    if kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json")):
        return None
    what = f"is {kind[:60]!r}" if kind else "is missing"
    return (
        "The body must be declared as JSON",
        f"Content-Type {what}; send JSON and the header Content-Type: application/json.",
        {"Accept": "application/json"},
    )
