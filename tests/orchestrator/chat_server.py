"""A language model's endpoint: a real HTTP server on loopback that speaks chat completions."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

KEY = "sk-of-the-test"


@dataclass
class ChatServer:
    """Answers with ``replies``, one after the other, or with ``failure`` instead."""

    replies: list[str] = field(default_factory=list)
    failure: Response | None = None
    #: No request is answered while this is unset.
    go: asyncio.Event = field(default_factory=asyncio.Event)
    asked: list[dict[str, Any]] = field(default_factory=list)
    port: int = 0

    def __post_init__(self) -> None:
        self.go.set()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def complete(self, request: Request) -> Response:
        if request.headers.get("authorization") != f"Bearer {KEY}":
            return JSONResponse({"error": {"message": f"Incorrect key {KEY}"}}, status_code=401)
        self.asked.append(json.loads(await request.body()))
        await self.go.wait()
        if self.failure is not None:
            return self.failure
        message = {"role": "assistant", "content": self.replies.pop(0)}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return JSONResponse({"id": "1", "object": "chat.completion", "choices": [choice]})


@contextlib.asynccontextmanager
async def serving(app: ASGIApp) -> AsyncIterator[int]:
    """The app behind real HTTP, on a port of loopback."""
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    with contextlib.closing(config.bind_socket()) as listener:
        running = asyncio.create_task(server.serve([listener]))
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            await running


@contextlib.asynccontextmanager
async def chatting() -> AsyncIterator[ChatServer]:
    chat = ChatServer()
    app = Starlette(routes=[Route("/v1/chat/completions", chat.complete, methods=["POST"])])
    async with serving(app) as chat.port:
        try:
            yield chat
        finally:
            chat.go.set()
