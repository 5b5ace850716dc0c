"""Requests of the REST API, counted: how many are in flight, and how long each took."""

from __future__ import annotations

import time

from prometheus_client import Gauge, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.orchestrator.api.shown_route import shown_route

_SECONDS = Histogram(
    "dualprocess_http_request_seconds",
    "How long it took until an answer began: a stream's goes on.",
    ["method", "route", "status"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
_IN_FLIGHT = Gauge(
    "dualprocess_http_requests_in_flight", "Requests that have not ended, streams among them."
)
#: Whoever asks may write any other word.
_METHODS = frozenset({"GET", "HEAD", "POST", "DELETE", "OPTIONS", "PUT", "PATCH"})


class WatchedRequests:
    """ASGI middleware. Labels are routes as they are documented: never a path as it was sent."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin, status = time.perf_counter(), "none"
        # Now: what is mounted, as the page is, writes itself into the scope.
        route = shown_route(scope) or "unknown"
        # Nobody began to answer a client that left, or what broke.
        took: float | None = None

        async def sending(message: Message) -> None:
            nonlocal status, took
            if message["type"] == "http.response.start":
                status, took = str(message["status"]), time.perf_counter() - begin
            await send(message)

        try:
            with _IN_FLIGHT.track_inprogress():
                await self._app(scope, receive, sending)
        except Exception:
            status = "500" if took is None else status
            raise
        finally:
            method = scope["method"] if scope["method"] in _METHODS else "other"
            seconds = time.perf_counter() - begin if took is None else took
            _SECONDS.labels(method, route, status).observe(seconds)
