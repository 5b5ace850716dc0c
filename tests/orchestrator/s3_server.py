"""A real S3 over HTTP: moto's server, in a process that can be frozen."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx

from services.local.ports import free_port

BUCKET = "bucket"
_START_SECONDS = 60.0


@dataclass(frozen=True)
class S3Server:
    """Its bucket is made. It believes every key and signature."""

    process: subprocess.Popen[bytes]
    url: str

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to use it."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "a secret",
            "AWS_REGION": "us-east-1",
        }

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """It takes connections meanwhile, and answers nothing."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def s3_server() -> Iterator[S3Server]:
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            _until_it_listens(port, process)
            server = S3Server(process, f"http://127.0.0.1:{port}")
            httpx.put(f"{server.url}/{BUCKET}").raise_for_status()
            yield server
        finally:
            process.kill()


def _until_it_listens(port: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + _START_SECONDS
    while True:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError("moto's server did not start")
        time.sleep(0.05)
