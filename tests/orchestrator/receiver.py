"""A webhook's receiver: a real HTTP server on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

#: Seconds. A message is sent at once, or never.
LONGEST_WAIT = 15.0


@dataclass
class Received:
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """Answers as set, and keeps the messages."""

    port: int = 0
    scheme: str = "http"
    #: Statuses of the next answers; then 204.
    answers: list[int] = field(default_factory=list)
    #: Seconds before each answer.
    slow: float = 0.0
    #: Bytes of each answer's body.
    body: int = 0
    got: list[Received] = field(default_factory=list)
    #: Answers with a body that were read to their end.
    read_whole: int = 0
    serving: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/hook?for=me"

    async def until(self, count: int) -> list[Received]:
        """The messages, when this many have come."""
        loop = asyncio.get_running_loop()
        end = loop.time() + LONGEST_WAIT
        while len(self.got) < count:
            if loop.time() > end:
                pytest.fail(f"{len(self.got)} of {count} messages came in {LONGEST_WAIT:g} s")
            await asyncio.sleep(0.02)
        return self.got

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.serving.add(task)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            request, *lines = head.split("\r\n")
            pairs = (line.partition(": ") for line in lines if line)
            headers = {name.lower(): value for name, _, value in pairs}
            body = await reader.readexactly(int(headers["content-length"]))
            self.got.append(Received(request.split()[1], headers, body))
            await asyncio.sleep(self.slow)
            status = self.answers.pop(0) if self.answers else 204
            more = f"content-length: {self.body}\r\n" if self.body else ""
            location = f"location: {self.url}\r\n" if 300 <= status < 400 else ""
            writer.write(f"HTTP/1.1 {status} x\r\n{more}{location}\r\n".encode())
            half = b"x" * (self.body // 2)
            writer.write(half)
            await writer.drain()
            if self.body and not await _has_left(reader):
                writer.write(half)
                await writer.drain()
                await reader.read()
                self.read_whole += 1
        writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()


async def _has_left(reader: asyncio.StreamReader) -> bool:
    try:
        async with asyncio.timeout(0.2):
            await reader.read()
    except TimeoutError:
        return False
    return True


@contextlib.asynccontextmanager
async def receiving(
    receiver: Receiver | None = None, *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Receiver]:
    """The receiver listens, on its earlier port if it had one."""
    receiver = receiver or Receiver(scheme="https" if tls else "http")
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", receiver.port, ssl=tls)
    receiver.port = server.sockets[0].getsockname()[1]
    yield receiver
    server.close()
    await asyncio.gather(*receiver.serving, return_exceptions=True)
