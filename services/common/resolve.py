"""Finds the addresses of a gRPC target."""

from __future__ import annotations

import asyncio
import ipaddress
import socket

from services.common.addresses import host_port


async def addresses(target: str) -> list[str]:
    """gRPC targets with one address each, sorted. ``[target]`` if it has one address, if only gRPC
    can resolve it, and if it can't be resolved now."""
    scheme, _, listed = target.partition(":")
    if scheme in ("ipv4", "ipv6"):
        return sorted({f"{scheme}:{one}" for one in listed.split(",")})
    host, port = named(target) or ("", 0)
    if not host:
        return [target]
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP
        )
    except OSError:
        return [target]
    hosts = sorted({str(one[4][0]) for one in found})
    several = [f"{'ipv6' if ':' in one else 'ipv4'}:{host_port(one, port)}" for one in hosts]
    return several if len(several) > 1 else [target]


def named(target: str) -> tuple[str, int] | None:
    """Host and port of a target that this machine's resolver can look up; else ``None``."""
    name = target
    if target.startswith("dns:"):
        name = target.removeprefix("dns:")
        if name.startswith("//"):
            server, _, name = name[2:].partition("/")
            if server:
                return None
    host, _, port = name.rpartition(":")
    if not host or not port.isdecimal() or host.startswith("["):
        return None
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host, int(port)
    return None
