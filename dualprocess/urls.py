"""Checks HTTP addresses before anything tries to connect to them."""

from __future__ import annotations

import ipaddress
import re

import httpx

#: A part of a host name in its ASCII form. Some names have underscores.
_LABEL = re.compile(r"[A-Za-z0-9_-]{1,63}")
_MAX_HOST = 253


def parsed(text: str) -> httpx.URL:
    """The URL; scheme and host may be missing. Raises ``ValueError`` with the fault and the remedy.
    The message never repeats the URL, which may contain a password."""
    try:
        url = httpx.URL(text)
        host = url.raw_host.decode("ascii")
    except (httpx.InvalidURL, ValueError):
        # Without the cause: it quotes a part of the password as the host or port.
        raise ValueError("is not a URL; write it like https://host/path") from None
    if host and (fault := host_fault(host)):
        raise ValueError(fault)
    try:
        _ = url.host
    except ValueError:
        raise ValueError("has a host with a wrong xn-- part; correct it") from None
    if url.port is not None and (fault := port_fault(url.port)):
        raise ValueError(fault)
    return url


def host_fault(host: str) -> str | None:
    """Why ``host`` is neither an address nor a name in its ASCII form; ``None`` if it is one."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        labels = host.removesuffix(".").split(".")
        if len(host) <= _MAX_HOST and all(map(_LABEL.fullmatch, labels)):
            return None
        return (
            "has a host that is not a valid name; a name has parts of 1 to 63 letters, digits and "
            f"hyphens, separated by dots, and at most {_MAX_HOST} characters in all"
        )
    return None


def port_fault(port: int) -> str | None:
    """Why this can't be the number of a port; ``None`` if it can."""
    return None if 0 < port < 1 << 16 else "has a port that does not exist; write 1 to 65535"
