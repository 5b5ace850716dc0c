"""One child process: started, its output kept, stopped, never orphaned."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from dualprocess import printable
from services.local import private

_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
_PR_SET_PDEATHSIG = 1

#: A longer line is printed in pieces: a progress bar may write for hours without ending a line.
_LONGEST_LINE = 8192
#: How many lines of a dead child's output are printed when the supervisor gives up.
_TAIL = 12


@dataclass(frozen=True)
class ChildSpec:
    """What to run, and how to know that it is ready."""

    name: str
    command: Sequence[str]
    ready: Callable[[], Awaitable[bool]]
    #: In addition to this process's own variables. Secrets go here, since everyone on the machine
    #: can read command lines.
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    #: What the start waits for, as a message says it, and for how long at most.
    waits_for: str = "it to be ready"
    ready_seconds: float = 300.0
    #: The umask of the process; -1: this process's own.
    umask: int = -1


@dataclass
class Child:
    """A running ``spec``. Its output goes to ``log``, and line by line to ``say``."""

    spec: ChildSpec
    log: Path
    say: Callable[[str, str], None]
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=_TAIL))
    started: float = 0.0
    _process: asyncio.subprocess.Process | None = None

    async def run(self) -> int:
        """Starts it, and returns its exit status when it has ended."""
        parent = os.getpid()
        self.started = time.monotonic()
        with private.appending(self.log) as log:
            process = await asyncio.create_subprocess_exec(
                *self.spec.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env={**os.environ, **self.spec.environment, "PYTHONUNBUFFERED": "1"},
                # A session of its own: Ctrl-C reaches the supervisor only, which stops all.
                start_new_session=True,
                umask=self.spec.umask,
                preexec_fn=lambda: _die_with(parent),
            )
            self._process = process
            await self._keep_output(process, log)
            return await process.wait()

    async def _keep_output(self, process: asyncio.subprocess.Process, log: BinaryIO) -> None:
        assert process.stdout is not None
        rest = b""
        while chunk := await process.stdout.read(_LONGEST_LINE):
            log.write(chunk)
            log.flush()
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) > _LONGEST_LINE:
                # A line that may still be overwritten is kept: its last state is printed with its
                # end.
                before, _, last = rest.rpartition(b"\r")
                lines, rest = ([*lines, before], last) if before else ([*lines, rest], b"")
            for line in lines:
                self._tell(line)
        if rest:
            self._tell(rest)

    def _tell(self, raw: bytes) -> None:
        # The last state of a line that was overwritten.
        line = printable.line(raw.decode(errors="replace").rstrip().rpartition("\r")[2])
        self.tail.append(line)
        self.say(self.spec.name, line)

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the child, if it runs."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)


def _die_with(parent: int) -> None:
    """The kernel kills this process when its parent dies, however that happens."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
