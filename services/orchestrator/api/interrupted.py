"""A request that is interrupted because this process stops gets a 503, not a 500."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dualprocess.schemas import Problem
from services.orchestrator.api.problems import RETRY_AFTER_SECONDS, respond


class Interrupted:
    """ASGI middleware: 503 for what still waits, for Redis say, when the server cancels it.

    An answer that has begun breaks off; whoever reads a stream comes back with its last id.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def sending(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except asyncio.CancelledError:
            if begun:
                raise
            problem = Problem(
                status=503,
                title="The server is stopping",
                detail="Ask again in a moment; with the same Idempotency-Key nothing is done "
                "twice.",
            )
            headers = {"Retry-After": str(RETRY_AFTER_SECONDS), "Connection": "close"}
            await respond(problem, headers)(scope, receive, send)
