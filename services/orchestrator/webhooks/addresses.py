"""Which addresses a webhook may reach: those on the public internet, and none in this service's own
network."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import httpx

from dualprocess import urls

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Awaitable[list[str]]]

_RESOLVE_SECONDS = 5.0
#: Threads of their own: a host whose DNS does not answer keeps its thread busy for long after the
#: time-out.
_RESOLVERS = ThreadPoolExecutor(8, "resolver")

_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
#: The prefix under which a network without IPv4 reaches the IPv4 internet (RFC 6052), with the
#: address in 32 bits.
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
#: Addresses that ``is_global`` treats as public in some versions of Python.
_SPECIAL = (
    ipaddress.ip_network("192.0.0.0/24"),
    ipaddress.ip_network("192.88.99.0/24"),
    ipaddress.ip_network("3fff::/20"),
)


class AddressRefused(Exception):
    """The message says what is wrong with the address, and what to write instead."""


async def resolve(host: str, port: int) -> list[str]:
    """The system's answer: names, and whatever it takes for an address (2130706433, 0x7f.1).

    Raises ``OSError``.
    """
    look_up = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    found = await asyncio.get_running_loop().run_in_executor(_RESOLVERS, look_up)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class AddressPolicy:
    """``loopback`` allows this machine itself, by http too: for tests and for trying things out."""

    def __init__(self, *, loopback: bool = False, resolve: Resolve = resolve) -> None:
        self._loopback = loopback
        self._resolve = resolve

    def parsed(self, text: str) -> httpx.URL:
        """Checks the URL. Raises ``AddressRefused`` for one that is wrong wherever its host is."""
        try:
            url = urls.parsed(text)
        except ValueError as error:
            raise AddressRefused(str(error)) from error
        schemes = ("https", "http") if self._loopback else ("https",)
        if url.scheme not in schemes or not url.host:
            raise AddressRefused("must be an https:// address")
        if url.userinfo or url.fragment:
            raise AddressRefused("must have no user, password or #fragment; put it in the path")
        return url

    async def addresses(self, host: str, port: int, *, scheme: str) -> list[str]:
        """The addresses of ``host`` now. Raises ``AddressRefused`` if even one of them is not for
        webhooks: whoever controls the name could put that one first the next time."""
        try:
            async with asyncio.timeout(_RESOLVE_SECONDS):
                found = await self._resolve(host, port)
        except TimeoutError as error:
            raise AddressRefused(
                f"{host} could not be looked up within {_RESOLVE_SECONDS:g} s; check the name, or "
                "try again"
            ) from error
        except (OSError, ValueError, OverflowError) as error:
            raise AddressRefused(f"{host} has no address ({error}); check the name") from error
        for address in found:
            if fault := self._fault(address, scheme):
                raise AddressRefused(f"{host} is {address}, {fault}")
        return found

    def _fault(self, text: str, scheme: str) -> str | None:
        # A zone, as in fe80::1%eth0, belongs to link-local addresses only.
        address = ipaddress.ip_address(text)
        if self._loopback and address.is_loopback:
            return None
        if scheme != "https":
            return "which needs https"
        if not is_public(address):
            return "which is not on the public internet; use a server that is"
        return None


def is_public(address: Address) -> bool:
    """Whether it is a server's anywhere on the internet: neither private, loopback, link-local,
    multicast, reserved nor unspecified, nor another way to write one of those."""
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:
            return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        # Outside lie ::1, ::ffff:a.b.c.d, ::a.b.c.d, fc00::/7, fe80::/10, ff00::/8; 6to4 is inside.
        if address not in _GLOBAL_UNICAST or address.sixtofour is not None:
            return False
    if any(address in network for network in _SPECIAL):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved
