"""The page as an ASGI app that is built when it is first wanted, or a little after the start."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

log = logging.getLogger(__name__)

#: Gradio takes seconds of CPU time to import. For so long after the start the other processes of
#: this machine have it, unless somebody opens the page.
_LATER_SECONDS = 5.0


class LatePage:
    """``build`` gives the app that has the page mounted as its only route. It runs in a thread,
    once; requests wait for it. ``built`` is called afterwards.

    ``open`` starts and ends what the page needs, and is to surround all requests. If ``build``
    fails, the log says why, and so does each request, by raising it.
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
    async def open(self) -> AsyncIterator[None]:
        self._page = asyncio.get_running_loop().create_future()
        closing = asyncio.Event()
        work = asyncio.create_task(self._serve(self._page, closing))
        try:
            yield
        finally:
            closing.set()
            self._wanted.set()
            await work

    async def _serve(self, page: asyncio.Future[ASGIApp], closing: asyncio.Event) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wanted.wait(), _LATER_SECONDS)
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
