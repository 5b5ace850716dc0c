"""From whose web pages this service takes requests, where it asks nobody for a key.

Browsers send some requests of any page to anywhere, and only keep the answer from it.
"""

from __future__ import annotations

from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from dualprocess.schemas import Problem
from services.orchestrator.api.refusals import refuse

_PORTS = {"http": ":80", "https": ":443"}


class OwnPages:
    """ASGI middleware: 403 for a page that is neither this service's nor of ``origins``.

    What names no origin comes from no page, or could not change anything: see ``JsonBodies``.
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
                    detail=f"Origin is {origins[0][:100]!r}, and is not the service's own. Whoever "
                    "runs it lets it in by --cors-origins (DUALPROCESS_CORS_ORIGINS); a proxy in "
                    "front of the service must pass Host on, or set X-Forwarded-Host.",
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
