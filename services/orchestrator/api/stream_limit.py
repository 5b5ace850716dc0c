"""Limits event streams, and those of the page, before anything else is done for them."""

from __future__ import annotations

import asyncio
import contextlib
import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.orchestrator.api.auth import Caller
from services.orchestrator.api.problems import respond_full
from services.orchestrator.following.places import NoPlace, Places
from services.orchestrator.route_path import route_path
from services.orchestrator.ui import paths

#: The most streams that are opened at the same time, so that other requests go on meanwhile.
_OPENED_TOGETHER = 8

_EVENTS = re.compile(r"/v1/jobs/[^/]+/events")


class StreamLimit:
    """ASGI middleware: each stream takes a place until it ends; 429 if there is none."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._opening = asyncio.Semaphore(_OPENED_TOGETHER)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _is_stream(route_path(scope)):
            await self._app(scope, receive, send)
            return
        places: Places = scope["app"].state.dualprocess.places
        caller: Caller = scope["state"]["caller"]
        try:
            place = places.take(caller.key_id)
        except NoPlace as error:
            await respond_full(error)(scope, receive, send)
            return
        with place:
            await self._open(scope, receive, send)

    async def _open(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with contextlib.AsyncExitStack() as opening:
            await opening.enter_async_context(self._opening)

            async def sending(message: Message) -> None:
                await opening.aclose()
                await send(message)

            await self._app(scope, receive, sending)


def _is_stream(path: str) -> bool:
    return _EVENTS.fullmatch(path) is not None or paths.is_stream(path)
