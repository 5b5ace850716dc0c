"""``python -m benchmarks.load.crowd``: very many event streams of one job, all in one process.

It opens them all at once, and prints as JSON how many of them the API accepted and refused, and how
long that took. At SIGTERM it prints how many events each stream got. It uses plain sockets, since
an HTTP client would need more CPU time than the API itself.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import time
from dataclasses import asdict, dataclass, field

_TAKEN, _REFUSED = 200, 429
_READ_BYTES = 1 << 16
_ID = b"\nid: "
#: Connections that wait for the API to accept them. A kernel allows only a few thousand.
_AT_ONCE = 1000


@dataclass
class Opened:
    """``other`` counts other statuses, and connections that failed."""

    taken: int = 0
    refused: int = 0
    other: int = 0
    seconds: float = 0.0


@dataclass
class Crowd:
    opened: Opened = field(default_factory=Opened)
    #: The number of events that came over each accepted stream.
    heard: list[int] = field(default_factory=list)
    #: Streams that ended too early.
    broken: int = 0

    async def listen(
        self, port: int, job_id: str, gate: asyncio.Semaphore
    ) -> asyncio.Task[None] | None:
        """Opens one stream. Returns the task that reads it, or ``None`` if it was not accepted."""
        async with gate:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                request = f"GET /v1/jobs/{job_id}/events HTTP/1.1\r\nHost: localhost\r\n\r\n"
                writer.write(request.encode())
                status = int((await reader.readline()).split()[1])
            except (OSError, IndexError):
                self.opened.other += 1
                return None
        self.opened.taken += status == _TAKEN
        self.opened.refused += status == _REFUSED
        self.opened.other += status not in (_TAKEN, _REFUSED)
        if status != _TAKEN:
            writer.close()
            return None
        self.heard.append(0)
        return asyncio.create_task(self._read(reader, writer, len(self.heard) - 1))

    async def _read(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int
    ) -> None:
        end = b""
        try:
            while part := await reader.read(_READ_BYTES):
                # A mark may be cut in two.
                text = end + part
                self.heard[number] += text.count(_ID)
                end = text[-(len(_ID) - 1) :]
            self.broken += 1
        finally:
            writer.close()


async def _main(options: argparse.Namespace) -> None:
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    crowd, gate, begin = Crowd(), asyncio.Semaphore(_AT_ONCE), time.monotonic()
    found = await asyncio.gather(
        *(crowd.listen(options.port, options.job, gate) for _ in range(options.streams))
    )
    crowd.opened.seconds = time.monotonic() - begin
    print(json.dumps(asdict(crowd.opened)), flush=True)
    await stopping.wait()
    reading = [task for task in found if task is not None]
    for task in reading:
        task.cancel()
    await asyncio.gather(*reading, return_exceptions=True)
    print(json.dumps({"heard": crowd.heard, "broken": crowd.broken}))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--job", required=True)
    parser.add_argument("--streams", type=int, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(_main(_options()))
