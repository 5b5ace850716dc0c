from __future__ import annotations

import asyncio
import inspect
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import httpx
import pytest

from dualprocess import AsyncClient, Client, protocol

HERE = Path(__file__).parent

Handler = Callable[[httpx.Request], httpx.Response]


#: More requests than any test needs from one client, so that a client that tries for ever fails.
MOST_REQUESTS = 100


class Blocking:
    """An ``AsyncClient`` with the signatures of ``Client``."""

    def __init__(self, client: AsyncClient, runner: asyncio.Runner) -> None:
        self._client = client
        self._runner = runner

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)

        def call(*args: Any, **options: Any) -> Any:
            answer = method(*args, **options)
            if inspect.isawaitable(answer):
                return self._runner.run(_awaited(answer))
            return iter(self._runner.run(_all(answer)))

        return call


async def _awaited(answer: Any) -> Any:
    return await answer


async def _all(answers: AsyncIterator[Any]) -> list[Any]:
    return [answer async for answer in answers]


def _patient_for_a_while(handler: Handler) -> Handler:
    requests = itertools.count(1)

    def handle(request: httpx.Request) -> httpx.Response:
        if next(requests) > MOST_REQUESTS:
            pytest.fail(f"the client keeps asking: {request.method} {request.url}")
        return handler(request)

    return handle


class Talking(Protocol):
    """Either client, talking to a handler."""

    def __call__(self, handler: Handler, api_key: str | None = None) -> Client: ...


@pytest.fixture(params=["Client", "AsyncClient"])
def talking_to(request: pytest.FixtureRequest) -> Iterator[Talking]:
    """Makes a client of the kind the test is run for."""
    with asyncio.Runner() as runner:

        def make(handler: Handler, api_key: str | None = None) -> Any:
            transport = httpx.MockTransport(_patient_for_a_while(handler))
            if request.param == "Client":
                return Client("http://service", api_key, transport=transport)
            return Blocking(AsyncClient("http://service", api_key, transport=transport), runner)

        yield make


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """No test here waits for anything, so a client that hangs fails soon."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.timeout(20))


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "RETRY_SECONDS", (0.0, 0.0, 0.0))
