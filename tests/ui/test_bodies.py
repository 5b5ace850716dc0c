"""The page's requests have limits of their own, before Gradio reads them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from services.orchestrator.ui.bodies import MAX_BYTES
from services.orchestrator.ui.gate import Gate

JOIN = "/ui/gradio_api/queue/join"


async def _echo(scope: Scope, receive: Receive, send: Send) -> None:
    body = await Request(scope, receive).body()
    await Response(body)(scope, receive, send)


async def answered(body: bytes) -> httpx.Response:
    async def pieces() -> AsyncIterator[bytes]:
        for begin in range(0, len(body), 1 << 16):
            yield body[begin : begin + (1 << 16)]

    transport = httpx.ASGITransport(Gate(_echo))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        return await http.post(JOIN, content=pieces())


async def test_a_body_within_the_limits_comes_through_as_it_is() -> None:
    body = b'{"data": ["' + b"a" * 300_000 + b'"]}'
    answer = await answered(body)
    assert (answer.status_code, answer.content) == (200, body)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"[" * 100, "more than 32 lists and objects inside each other"),
        (b"[" + b"1," * 50_000 + b"1]", "more than 50,000 fields and items"),
        (b'"' + b"a" * MAX_BYTES + b'"', "more than 24 MiB; make drawings smaller"),
    ],
    ids=["deep", "many", "large"],
)
async def test_a_body_beyond_the_limits_is_refused(body: bytes, message: str) -> None:
    answer = await answered(body)
    assert answer.status_code == 413
    assert message in answer.text
