"""Keeps child processes running: starts, watches, restarts, stops."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from services.local import private
from services.local.child import Child, ChildSpec

log = logging.getLogger(__name__)

#: A child that lived for less than this, or was never ready, counts as a quick death.
QUICK_SECONDS = 10.0
#: After this many quick deaths in a row the supervisor gives up.
QUICK_DEATHS = 5
#: Pause before a restart: doubled after each quick death.
FIRST_PAUSE = 0.25
LONGEST_PAUSE = 8.0
#: From SIGTERM to SIGKILL, for each child.
GRACE_SECONDS = 10.0
_POLL_SECONDS = 0.1
#: Seconds between two messages about what a start waits for.
TELL_SECONDS = 5.0


class GaveUp(Exception):
    """A child died quickly too often, or was not ready in time. The message says which child and
    how, and has the end of its log."""


class Supervisor:
    """``children`` start together, and wait for each other as needed; they stop one by one, the
    last one first."""

    def __init__(
        self,
        children: Sequence[ChildSpec],
        logs: Path,
        say: Callable[[str, str], None],
        *,
        quick_seconds: float = QUICK_SECONDS,
        first_pause: float = FIRST_PAUSE,
        grace_seconds: float = GRACE_SECONDS,
        tell_seconds: float = TELL_SECONDS,
    ) -> None:
        private.make_folder(logs)
        self._children = [Child(spec, logs / f"{spec.name}.log", say) for spec in children]
        self._quick_seconds = quick_seconds
        self._first_pause = first_pause
        self._grace_seconds = grace_seconds
        self._tell_seconds = tell_seconds
        self._stopping = asyncio.Event()
        self._watches: dict[str, asyncio.Task[None]] = {}
        self._were_ready: set[str] = set()

    async def start(self) -> None:
        """Returns when all are ready. Raises ``GaveUp``, with everything stopped."""
        for child in self._children:
            self._watches[child.spec.name] = asyncio.create_task(self._watch(child))
        for child in self._children:
            await self._until_ready(child)

    async def _until_ready(self, child: Child) -> None:
        begun = told = time.monotonic()
        while not await child.spec.ready():
            await self._raise_dead_watches()
            now = time.monotonic()
            if now - begun > child.spec.ready_seconds:
                await self.stop()
                raise GaveUp(
                    f"{child.spec.name} was not ready after {now - begun:.0f} s of waiting for "
                    f"{child.spec.waits_for}. Its last words:\n{_last_words(child)}"
                )
            if now - told > self._tell_seconds:
                told = now
                log.info(
                    "%s: waiting for %s, %.0f s so far",
                    child.spec.name,
                    child.spec.waits_for,
                    now - begun,
                )
            await asyncio.sleep(_POLL_SECONDS)
        self._were_ready.add(child.spec.name)

    async def _raise_dead_watches(self) -> None:
        for watch in self._watches.values():
            if watch.done():
                await self.stop()
                watch.result()

    async def wait(self) -> None:
        """Ends only by raising ``GaveUp``, with everything stopped."""
        await asyncio.wait(self._watches.values(), return_when=asyncio.FIRST_COMPLETED)
        await self._raise_dead_watches()

    async def stop(self) -> None:
        """Stops all, the last started first: SIGTERM, then SIGKILL for a child that does not
        stop."""
        self._stopping.set()
        for child in reversed(self._children):
            watch = self._watches.get(child.spec.name)
            if watch is None or watch.done():
                continue
            child.signal(signal.SIGTERM)
            done, _ = await asyncio.wait({watch}, timeout=self._grace_seconds)
            if not done:
                log.warning("%s did not stop in time and was killed", child.spec.name)
                child.signal(signal.SIGKILL)
                await asyncio.wait({watch})

    async def _watch(self, child: Child) -> None:
        quick_deaths = 0
        while not self._stopping.is_set():
            status = await child.run()
            if self._stopping.is_set():
                return
            lived = time.monotonic() - child.started
            quick = lived < self._quick_seconds or child.spec.name not in self._were_ready
            quick_deaths = quick_deaths + 1 if quick else 0
            how = f"{child.spec.name} died after {lived:.1f} s with {_status(status)}"
            if quick_deaths >= QUICK_DEATHS:
                raise GaveUp(
                    f"{how}, {quick_deaths} times in a row. Its last words:\n{_last_words(child)}"
                )
            pause = min(self._first_pause * 2 ** max(quick_deaths - 1, 0), LONGEST_PAUSE)
            log.warning("%s; it starts again in %.2g s", how, pause)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)


def _last_words(child: Child) -> str:
    return "\n".join(f"    {line}" for line in child.tail)


def _status(status: int) -> str:
    return f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
