"""Hosts and gRPC targets, as people write them."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated

from pydantic import AfterValidator

from dualprocess.urls import port_fault

#: gRPC's own schemes whose rest is not one ``host:port``.
_OTHER_SCHEMES = re.compile(r"(ipv4|ipv6|unix|unix-abstract|vsock|xds):")

_PORT_DIGITS = 5


def host_port(host: str, port: int) -> str:
    """Host and port as one text, as gRPC and URLs need it: an IPv6 address gets brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _bare(host: str) -> str:
    """The host without an IPv6 address's brackets, as sockets need it."""
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if "/" in bare:
        raise ValueError("must be a host without http:// and path, like 127.0.0.1 or ::1")
    if ":" in bare and not _is_ipv6(bare):
        raise ValueError("must be a host alone, like 127.0.0.1 or ::1; the port goes to --port")
    return bare


def _is_ipv6(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True


def _reachable(target: str) -> str:
    """Checks a target. gRPC itself reads a wrong one as the name of a host, and looks for that name
    for ever."""
    if _OTHER_SCHEMES.match(target):
        return target
    name = target.removeprefix("dns:")
    if name != target and name.startswith("//"):
        name = name[2:].partition("/")[2]
    host, _, port = name.rpartition(":")
    if "/" in name or not host or not port.isdecimal():
        raise ValueError("must be host:port, or dns:///host:port for all addresses of a name")
    if not (port.isascii() and len(port) <= _PORT_DIGITS) or port_fault(int(port)):
        raise ValueError("has a port that does not exist; write 1 to 65535")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ValueError("has an IPv6 address without brackets; write it like [::1]:50051")
    return target


#: The address on which a server listens: a name or an address, without port.
Host = Annotated[str, AfterValidator(_bare)]
#: The address at which a gRPC service can be reached.
Target = Annotated[str, AfterValidator(_reachable)]
