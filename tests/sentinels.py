"""Redis with a replica, watched by three sentinels, on free ports of loopback."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from tests.redis_server import INSTALLED, WHEEL, free_port

_SERVICE = "main"
_WAIT_SECONDS = 30.0


class Watched:
    """``url`` names the sentinels; whoever is the master."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ports = [free_port() for _ in range(2)]
        self._sentinels = [free_port() for _ in range(3)]
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{port}" for port in self._sentinels)
        return f"redis+sentinel://{hosts}/{_SERVICE}/0"

    def start(self) -> None:
        """Returns when every sentinel knows the others and the replica."""
        first, second = self._ports
        self._run(first, [])
        self._run(second, [f"replicaof 127.0.0.1 {first}"])
        _until(lambda: _asked(second, "info")["master_link_status"] == "up")
        watch = [
            f"sentinel monitor {_SERVICE} 127.0.0.1 {first} 2",
            f"sentinel down-after-milliseconds {_SERVICE} 500",
            f"sentinel failover-timeout {_SERVICE} 5000",
        ]
        for port in self._sentinels:
            self._run(port, watch, "--sentinel")
        for port in self._sentinels:
            _until(lambda port=port: _knows_all(port))

    @property
    def master(self) -> int:
        """Its port, as the first sentinel knows it."""
        with Redis(port=self._sentinels[0], decode_responses=True) as sentinel:
            state = sentinel.execute_command("SENTINEL", "get-master-addr-by-name", _SERVICE)
        return int(state[1])

    def fail_over(self) -> None:
        """The master is killed; returns when another one is."""
        before = self.master
        killed = self._processes.pop(before)
        killed.kill()
        killed.wait()
        _until(lambda: self.master != before and _asked(self.master, "info")["role"] == "master")

    def stop(self) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait()

    def _run(self, port: int, lines: list[str], *flags: str) -> None:
        # A sentinel writes into its own file.
        file = self._folder / f"{port}.conf"
        own = [f"port {port}", "bind 127.0.0.1", f"dir {self._folder}", 'save ""']
        file.write_text("\n".join([*own, *lines]), encoding="utf-8")
        self._processes[port] = subprocess.Popen(
            [INSTALLED or WHEEL, str(file), *flags], stdout=subprocess.DEVNULL
        )
        _until(lambda: _asked(port, "ping"))


@contextmanager
def watched(folder: Path) -> Iterator[Watched]:
    site = Watched(folder)
    try:
        site.start()
        yield site
    finally:
        site.stop()


def _knows_all(port: int) -> bool:
    with Redis(port=port, decode_responses=True) as sentinel:
        state = sentinel.execute_command("SENTINEL", "master", _SERVICE)
    return int(state["num-other-sentinels"]) == 2 and int(state["num-slaves"]) == 1


def _asked(port: int, what: str) -> Any:
    with Redis(port=port, decode_responses=True) as redis:
        return getattr(redis, what)()


def _until(holds: Any) -> None:
    end = time.monotonic() + _WAIT_SECONDS
    while True:
        try:
            if holds():
                return
        except (RedisError, KeyError):
            pass
        if time.monotonic() > end:
            raise RuntimeError("the sentinels did not come to an end in time")
        time.sleep(0.05)
