"""Ports of this machine."""

from __future__ import annotations

import contextlib
import socket


def free_port() -> int:
    """A port that nobody listens on."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, none of them twice."""
    with contextlib.ExitStack() as held:
        listeners = [held.enter_context(socket.socket()) for _ in range(count)]
        for listener in listeners:
            listener.bind(("127.0.0.1", 0))
        return [listener.getsockname()[1] for listener in listeners]


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen there now: on every address that the name has."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        return all(_can_bind(family, address) for family, _, _, _, address in found)
    except OSError:
        return False


def _can_bind(family: socket.AddressFamily, address: tuple[str | int | bytes, ...]) -> bool:
    with socket.socket(family) as listener:
        # Set as servers set it: a port whose last connections are still closing counts as free.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
        return True
