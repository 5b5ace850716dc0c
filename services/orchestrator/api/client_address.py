"""Which address a request came from, behind proxies that are trusted."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from typing import TypeAlias

from starlette.types import Scope

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

#: Some proxies add the port.
_WITH_PORT = re.compile(r"(?:\[([^\]]+)\]|([^:]+))(?::\d+)?")
#: The smallest network that a provider gives to a customer.
_IPV6_PREFIX = 64


def address_of(text: str) -> Address | None:
    """The address without its zone; an IPv4 address that is written as IPv6 becomes IPv4. ``None``
    if the text is not an address."""
    try:
        found = ipaddress.ip_address(text.strip())
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv4Address):
        return found
    return found.ipv4_mapped or ipaddress.IPv6Address(int(found))


def is_in(address: Address | None, networks: Sequence[Network]) -> bool:
    return address is not None and any(address in network for network in networks)


def sender(peer: str, forwarded_for: str, trusted: Sequence[Network]) -> str:
    """The nearest address that is not a trusted proxy; the farthest one if all of them are.

    ``forwarded_for`` is ``X-Forwarded-For`` as a trusted ``peer`` sent it. Each proxy adds the
    address of its caller at the end. So what comes before the address of a stranger was written by
    that stranger, and is not believed.
    """
    nearest = peer
    for said in reversed(forwarded_for.split(",")):
        match = _WITH_PORT.fullmatch(said.strip())
        address = address_of(said) or (address_of(match[1] or match[2]) if match else None)
        if address is None:
            break
        nearest = str(address)
        if not is_in(address, trusted):
            break
    return nearest


def customer(scope: Scope) -> str:
    """The sender's address, or its whole network if it is IPv6."""
    address = address_of(scope["client"][0]) if scope.get("client") else None
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, _IPV6_PREFIX), strict=False))
    return "an unknown address" if address is None else str(address)
