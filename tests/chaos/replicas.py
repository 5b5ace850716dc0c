"""A client of the REST API that uses any replica that answers."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import TypeVar

from dualprocess import ApiError, AsyncClient, ConnectionFailed
from dualprocess.schemas import EventRecord

ResultT = TypeVar("ResultT")

#: A replica that does not answer for this long is stopped; then the other one is asked.
_TIMEOUT_SECONDS = 8.0
_PAUSE_SECONDS = 0.2
_SERVER_ERROR = 500


class Replicas:
    """``mistakes`` has every answer that is neither a result nor a ``503``."""

    def __init__(self, clients: Sequence[AsyncClient]) -> None:
        self.mistakes: list[str] = []
        self._clients = clients

    async def ask(self, call: Callable[[AsyncClient], Awaitable[ResultT]], first: int) -> ResultT:
        """The answer of one replica; ``first`` is asked first. Waits without a limit."""
        for client in itertools.islice(itertools.cycle(self._clients), first, None):
            with self._patience():
                return await call(client)
            await asyncio.sleep(_PAUSE_SECONDS)
        raise AssertionError

    async def events(self, job_id: str, first: int) -> AsyncIterator[EventRecord]:
        """Events as from ``AsyncClient.events``, from as many replicas as needed."""
        last: str | None = None
        for client in itertools.islice(itertools.cycle(self._clients), first, None):
            with self._patience():
                async for record in client.events(job_id, last_event_id=last):
                    last = record.id
                    yield record
                return
            await asyncio.sleep(_PAUSE_SECONDS)

    @contextlib.contextmanager
    def _patience(self) -> Iterator[None]:
        try:
            yield
        except ConnectionFailed:
            pass
        except ApiError as error:
            if error.problem.status < _SERVER_ERROR:
                raise
            if error.problem.status == _SERVER_ERROR:
                self.mistakes.append(str(error))


@contextlib.asynccontextmanager
async def replicas(urls: Sequence[str]) -> AsyncIterator[Replicas]:
    """A client of them all."""
    async with contextlib.AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(AsyncClient(url, timeout=_TIMEOUT_SECONDS))
            for url in urls
        ]
        yield Replicas(clients)
