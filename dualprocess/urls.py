"""Whether a URL of http is one that a connection can be made to, before anything tries."""

from __future__ import annotations

import ipaddress
import re

import httpx

#: Of a name in its ASCII form; some have underscores.
_LABEL = re.compile(r"[A-Za-z0-9_-]{1,63}")
_MAX_HOST = 253


def parsed(text: str) -> httpx.URL:
    """The URL, whose scheme and host may be missing. Raises ``ValueError`` with what is wrong and
    the remedy, and never repeats it: a password may be in it."""
    try:
        url = httpx.URL(text)
        host = url.raw_host.decode("ascii")
    except (httpx.InvalidURL, ValueError):
        # Not the cause: it repeats what it took for a host or port.
        raise ValueError("is no URL; write it like https://host/path") from None
    if host and (fault := host_fault(host)):
        raise ValueError(fault)
    try:
        _ = url.host
    except ValueError:
        raise ValueError("has a host whose xn-- stands for no name; correct it") from None
    if url.port is not None and (fault := port_fault(url.port)):
        raise ValueError(fault)
    return url


def host_fault(host: str) -> str | None:
    """Why nothing can be called so, if so: neither an address nor a name in its ASCII form."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        labels = host.removesuffix(".").split(".")
        if len(host) <= _MAX_HOST and all(map(_LABEL.fullmatch, labels)):
            return None
        return (
            "has a host that nothing can be called; a name has parts of 1 to 63 letters, digits "
            f"and hyphens with dots between, at most {_MAX_HOST} characters together"
        )
    return None


def port_fault(port: int) -> str | None:
    """Why no port has this number, if none has."""
    return None if 0 < port < 1 << 16 else "has a port beyond those there are; write 1 to 65535"
