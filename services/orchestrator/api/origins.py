"""Refuses requests from web pages of other origins, if the service needs no keys.

A browser sends some requests of a page to any address; it only hides the answer from the page.
"""

from __future__ import annotations

from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from dualprocess.schemas import Problem
from services.orchestrator.api.refusals import refuse

_PORTS = {"http": ":80", "https": ":443"}


class OwnPages:
    """ASGI middleware: 403 for a page whose origin is neither the service's own nor in ``origins``.

    A request without an origin is not from a page, or can't change anything: see ``JsonBodies``.
    """

    def __init__(self, app: ASGIApp, origins: Collection[str]) -> None:
        self._app = app
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            headers = Headers(scope=scope)
            origins = headers.getlist("origin")
            if not all(self._may(origin, headers.get("host", "")) for origin in origins):
                problem = Problem(
                    status=403,
                    title="Pages of this origin may not use this service",
                    detail=f"The origin {origins[0][:100]!r} is not the service's own. Whoever "
                    "runs the service can allow it with --cors-origins (DUALPROCESS_CORS_ORIGINS). "
                    "If a proxy is in front of the service, the proxy must pass on Host, or set "
                    "X-Forwarded-Host.",
                )
                await refuse(problem, scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _may(self, origin: str, host: str) -> bool:
        if "*" in self._origins or origin in self._origins:
            return True
        scheme, _, authority = origin.lower().partition("://")
        port = _PORTS.get(scheme)
        return port is not None and authority == host.lower().removesuffix(port)
