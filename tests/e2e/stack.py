"""The whole service in child processes, as a person starts it."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from services.local.ports import free_port

_START_SECONDS = 150


@dataclass(frozen=True)
class Stack:
    """A running stack: its address, its data folder, and the process that supervises it."""

    url: str
    data: Path
    supervisor: psutil.Process

    def child(self, module: str) -> psutil.Process:
        """The process that runs ``module`` now."""
        for process in self.children(module):
            return process
        raise LookupError(f"no child runs {module}")

    def children(self, module: str) -> list[psutil.Process]:
        """All processes that run ``module`` now."""
        found = []
        for process in self.supervisor.children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if module in process.cmdline():
                    found.append(process)
        return found

    def log(self, name: str) -> str:
        return (self.data / "logs" / f"{name}.log").read_text()


@contextlib.contextmanager
def running(
    data: Path, *flags: str, ui: bool = False, environment: Mapping[str, str] | None = None
) -> Iterator[Stack]:
    """A stack in ``data``, with further ``flags`` of `dualprocess up`. Its environment is this
    process's unless another is given."""
    port = free_port()
    command = [sys.executable, "-m", "services.local", f"--port={port}", f"--data={data}"]
    # The page takes seconds to load, and most tests don't need it.
    command += ["--metrics", "--ui" if ui else "--no-ui"]
    with (data / "up.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, *flags, "--quiet"], stdout=log, stderr=log, env=environment
        )
    try:
        _wait_until_ready(process, data / "up.log")
        yield Stack(f"http://127.0.0.1:{port}", data, psutil.Process(process.pid))
    finally:
        process.terminate()
        process.wait(60)


def _wait_until_ready(process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + _START_SECONDS
    while "is ready at" not in log.read_text():
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"the stack did not start:\n{log.read_text()}")
        time.sleep(0.2)
