"""Refuses requests with too large a body, before anything parses them."""

from __future__ import annotations

import contextlib

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dualprocess.schemas import Problem
from services.orchestrator.api.auth import Caller
from services.orchestrator.api.problems import respond


class _TooLarge(Exception):
    pass


class BodyLimit:
    """ASGI middleware: 413 for a body of more than ``limit`` bytes, announced or not.

    The quota of the caller's key can be lower.
    """

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        caller: Caller | None = scope.get("state", {}).get("caller")
        limit = self._limit
        if caller and caller.quotas:
            limit = min(limit, caller.quotas.body_bytes)
        announced = Headers(scope=scope).get("content-length", "0")
        if announced.isdecimal() and int(announced) > limit:
            await self._refuse(limit, scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise _TooLarge
            return message

        async def answered(message: Message) -> None:
            # FastAPI turns what a body's reader raises into a 400 of its own.
            if received <= limit:
                await send(message)

        with contextlib.suppress(_TooLarge):
            await self._app(scope, counted, answered)
        if received > limit:
            await self._refuse(limit, scope, receive, send)

    async def _refuse(self, limit: int, scope: Scope, receive: Receive, send: Send) -> None:
        whose = ", the quota body_bytes of this key" if limit < self._limit else ""
        problem = Problem(
            status=413,
            title="The request is too large",
            detail=f"Its body may have {limit:,} bytes{whose}; make visual prompts smaller, "
            "and name the job of a LoRA rather than send its file.",
        )
        await respond(problem)(scope, receive, send)
