"""The page as an ASGI app that is built when it is first wanted, or when the start is over."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from services.orchestrator.pauses import pause

log = logging.getLogger(__name__)

#: Gradio takes seconds of CPU time to import. The other processes of this machine have it first,
#: for so long at most, unless somebody opens the page.
_LATEST_SECONDS = 30.0
_LOOK_SECONDS = 0.5


class LatePage:
    """``build`` gives the app that has the page mounted as its only route. It runs in a thread,
    once; requests wait for it. ``built`` is called afterwards.

    ``open`` starts and ends what the page needs, and is to surround all requests. It builds the
    page once ``started`` says that the other processes have started. If ``build`` fails, the log
    says why, and so does each request, by raising it.
    """

    def __init__(
        self, build: Callable[[], FastAPI], built: Callable[[], None] = lambda: None
    ) -> None:
        self.build = build
        self._built = built
        self._wanted = asyncio.Event()
        self._page: asyncio.Future[ASGIApp] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self._page is not None, "requests come while the page is open"
        self._wanted.set()
        page = await asyncio.shield(self._page)
        await page(scope, receive, send)

    @contextlib.asynccontextmanager
    async def open(self, started: Callable[[], Awaitable[bool]]) -> AsyncIterator[None]:
        self._page = asyncio.get_running_loop().create_future()
        closing = asyncio.Event()
        works = (self._want_after(started), self._serve(self._page, closing))
        tasks = [asyncio.create_task(work) for work in works]
        try:
            yield
        finally:
            closing.set()
            self._wanted.set()
            await asyncio.gather(*tasks)

    async def _want_after(self, started: Callable[[], Awaitable[bool]]) -> None:
        while not self._wanted.is_set() and not await started():
            await pause(_LOOK_SECONDS, self._wanted)
        self._wanted.set()

    async def _serve(self, page: asyncio.Future[ASGIApp], closing: asyncio.Event) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wanted.wait(), _LATEST_SECONDS)
        self._wanted.set()
        if closing.is_set():
            page.cancel()
            return
        try:
            app = await asyncio.to_thread(self.build)
            async with app.router.lifespan_context(app):
                self._built()
                page.set_result(self._mounted(app))
                await closing.wait()
        except Exception as error:
            log.exception("the page can't be served")
            if not page.done():
                page.set_exception(error)
                # Read, so that nobody is told of it at the end who did not ask.
                page.exception()

    @staticmethod
    def _mounted(app: FastAPI) -> ASGIApp:
        mounted: ASGIApp = app.routes[-1].app  # type: ignore[attr-defined]
        return mounted
