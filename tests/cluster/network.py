"""Hosts on one machine: each a network namespace with an address, plugged into one switch.

All of it lives in namespaces of this process, which ``enter`` made, and is gone with it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

_NET = "10.77.0"
_PLACE = "/run/netns"
_UNSHARE = ("unshare", "--net", "--mount")
_MAKE_PLACE = f"mkdir -p {_PLACE} && mount -t tmpfs tmpfs {_PLACE}"
_TRIAL = (
    f"{_MAKE_PLACE} && ip netns add one && ip link add switch type bridge && "
    "ip link add name eth0 netns one type veth peer name port1"
)


def impossible() -> str | None:
    """Why no hosts can be made here, if they can't."""
    try:
        tried = subprocess.run([*_UNSHARE, "sh", "-c", _TRIAL], capture_output=True, text=True)
    except FileNotFoundError:
        return "needs unshare, of util-linux"
    if tried.returncode == 0:
        return None
    said = tried.stderr.strip().rpartition("\n")[2]
    return f"needs root, network namespaces, and ip, of iproute2: {said}"


def enter(module: str, arguments: Sequence[str]) -> None:
    """This process becomes ``python -m module --inside …``, beside which no network is."""
    command = [*_UNSHARE, sys.executable, "-m", module, "--inside", *arguments]
    os.execvp(command[0], command)  # noqa: S606


@dataclass(frozen=True)
class Host:
    name: str
    number: int
    address: str

    @property
    def port(self) -> str:
        """Of the switch, that it is plugged into."""
        return f"port{self.number}"

    def command(self, *words: str) -> list[str]:
        """That runs there."""
        return ["nsenter", f"--net={_PLACE}/{self.name}", *words]


class Network:
    """The switch has an address, too: that of who looks on."""

    def __init__(self) -> None:
        subprocess.run(["sh", "-c", _MAKE_PLACE], check=True)
        _ip("link set lo up")
        _ip("link add switch type bridge")
        _ip(f"address add {_NET}.254/24 dev switch")
        _ip("link set switch up")
        self._made = 0

    def host(self, name: str, *, in_place_of: Host | None = None) -> Host:
        """A new one, plugged in; with the address of another that is gone, or of its own."""
        self._made += 1
        address = in_place_of.address if in_place_of else f"{_NET}.{self._made}"
        host = Host(name, self._made, address)
        _ip(f"netns add {name}")
        _ip(f"link add name eth0 netns {name} type veth peer name {host.port}")
        _ip(f"-netns {name} address add {host.address}/24 dev eth0")
        for device in ("lo", "eth0"):
            _ip(f"-netns {name} link set {device} up")
        _ip(f"link set {host.port} up")
        self.plug(host)
        # Who looks on asks anew who has which address.
        _ip("neighbor flush dev switch")
        return host

    def unplug(self, host: Host) -> None:
        """What it sends and what is sent to it vanishes: nobody is told."""
        _ip(f"link set {host.port} nomaster")

    def plug(self, host: Host) -> None:
        _ip(f"link set {host.port} master switch")


def _ip(words: str) -> None:
    subprocess.run(["ip", *words.split()], check=True)
