from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.e2e.stack import Stack, running
from tests.orchestrator.chat_server import KEY, ChatServer, chatting
from tests.orchestrator.conftest import redis_server
from tests.orchestrator.test_keys import created, serving
from tests.redis_server import RedisServer
from tests.ui.browsing import CHROMIUM, REQUIRED, WHY_NOT, Visit, chromium

__all__ = ["redis_server"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One for each module, since playwright's event loop would disturb those of other tests."""
    if CHROMIUM is None and not REQUIRED:
        pytest.skip(WHY_NOT)
    assert CHROMIUM, WHY_NOT
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def stack(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The tiny pair with the page; none where there is no browser."""
    with running(tmp_path_factory.mktemp("ui"), ui=True) as stack:
        yield stack


@pytest.fixture
def visit(browser: Browser, stack: Stack) -> Iterator[Visit]:
    """A first visitor, whose pages must ask no other site and have no errors."""
    visit = Visit(browser, stack.url)
    yield visit
    visit.context.close()
    assert visit.outside == []
    assert visit.errors == []


@pytest.fixture(scope="session")
def chat() -> Iterator[ChatServer]:
    """A language model's endpoint, in a loop of its own: playwright has this thread's."""
    started, stop = threading.Event(), threading.Event()
    chats: list[ChatServer] = []

    async def serve() -> None:
        async with chatting() as chat:
            chats.append(chat)
            started.set()
            await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=asyncio.run, args=[serve()])
    thread.start()
    assert started.wait(30)
    yield chats[0]
    stop.set()
    thread.join()


@pytest.fixture(scope="session")
def url(
    redis_server: RedisServer, chat: ChatServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """An API that asks for keys, with the page and a language model, and without workers."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("DUALPROCESS_LLM_API_KEY", KEY)
        model = [f"--llm-base-url={chat.base_url}", "--llm-model=some-model"]
        folder = tmp_path_factory.mktemp("api")
        with serving(redis_server, folder, "--auth", "--ui", *model) as url:
            yield url


@pytest.fixture(scope="session")
def keys(redis_server: RedisServer) -> dict[str, str]:
    """Of two people."""
    scopes = ("--scope", "read", "--scope", "submit")
    return {name: created(redis_server, *scopes) for name in ("anna", "ben")}
