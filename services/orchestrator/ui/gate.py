"""A filter before Gradio: it lets only the page's own requests in, and the page can ask no other
site."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.orchestrator.json_outline import TooMuch
from services.orchestrator.route_path import route_path
from services.orchestrator.ui import paths
from services.orchestrator.ui.bodies import within_limits

#: With this policy the browser lets the page ask no other site. ``unsafe-eval`` is needed because
#: Gradio compiles its templates in the browser.
_POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self' data: blob:",
        "worker-src 'self' blob:",
        "frame-ancestors 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "object-src 'none'",
    )
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Gate:
    """ASGI middleware: 404 for paths that ``paths`` does not know, 413 for a body beyond the
    limits, and a content policy on all answers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not paths.is_page(path := route_path(scope)):
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        if paths.is_static(scope["method"], path):
            await self._app(scope, receive, guarded)
        elif paths.is_work(path):
            try:
                bounded = await within_limits(receive) if scope["method"] == "POST" else receive
            except TooMuch as error:
                await PlainTextResponse(f"The body {error}", 413)(scope, receive, guarded)
                return
            await self._app(scope, bounded, guarded)
        else:
            await PlainTextResponse("not found", 404)(scope, receive, guarded)
