"""Every request has an id: its own, if that can be one, else a new one. The answer carries it, the
log names it, and whatever the request sets off passes it on."""

from __future__ import annotations

import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.common import trail
from services.common.trail import Trail, sane_id

HEADER = "X-Request-Id"


class RequestIds:
    """ASGI middleware, outside of all others: refusals carry an id as well."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = sane_id(Headers(scope=scope).get(HEADER, "")) or uuid.uuid4().hex
        # To the end of the task, which is the request's own: what answers when everything within
        # broke is outside of this.
        trail.begin(Trail(request=request))

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[HEADER] = request
            await send(message)

        await self._app(scope, receive, sending)
