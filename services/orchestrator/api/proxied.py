"""What a proxy in front of the service changes: the path's prefix, the host, the scheme."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)*")
_HOST = re.compile(r"[A-Za-z0-9._-]+(:\d{1,5})?|\[[0-9A-Fa-f:.]+\](:\d{1,5})?")
#: Anybody can send these headers, and Gradio believes some of them, so they are removed.
_HEADERS = frozenset(
    {
        b"forwarded",
        b"x-forwarded-host",
        b"x-forwarded-prefix",
        b"x-forwarded-proto",
        b"x-gradio-server",
    }
)

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def networks(text: str) -> list[Network]:
    """The networks in a list of addresses and networks, separated by commas; ``*`` is all. Raises
    ``ValueError``."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    every = ["0.0.0.0/0", "::/0"] if "*" in names else []
    return [ipaddress.ip_network(name, strict=False) for name in every or names]


class Proxied:
    """ASGI middleware: requests come in as the proxy got them.

    With the prefix or without, since some proxies strip it and some do not: behind here it is
    ``root_path`` and ``path`` begins with it. Who is not ``trusted`` can't say what the request was
    like. Redirects name no host: what the browser asked for is right.
    """

    def __init__(self, app: ASGIApp, *, root_path: str, trusted: list[Network]) -> None:
        self._app = app
        self._root_path = root_path
        self._trusted = trusted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        told = Headers(scope=scope) if self._trusts(scope) else Headers({})
        headers = [pair for pair in scope["headers"] if pair[0] not in _HEADERS]
        scheme, host = _first(told, "x-forwarded-proto"), _first(told, "x-forwarded-host")
        if _HOST.fullmatch(host):
            headers = [pair for pair in headers if pair[0] != b"host"]
            headers.append((b"host", host.encode()))
        prefix = self._root_path
        if not prefix:
            prefix = _first(told, "x-forwarded-prefix").rstrip("/")
            prefix = prefix if PREFIX.fullmatch(prefix) else ""
        path: str = scope["path"]
        if prefix and path != prefix and not path.startswith(f"{prefix}/"):
            path = prefix + path
        seen = dict(scope, headers=headers, root_path=prefix, path=path)
        if scheme in ("http", "https"):
            seen["scheme"] = scheme

        async def answered(message: Message) -> None:
            if message["type"] == "http.response.start":
                _relocate(MutableHeaders(scope=message), Headers(scope=seen), prefix)
            await send(message)

        await self._app(seen, receive, answered)

    def _trusts(self, scope: Scope) -> bool:
        try:
            peer = ipaddress.ip_address(scope["client"][0])
        except (TypeError, ValueError):
            return False
        return any(peer in network for network in self._trusted)


def _first(headers: Headers, name: str) -> str:
    return headers.get(name, "").partition(",")[0].strip()


def _relocate(headers: MutableHeaders, asked: Headers, prefix: str) -> None:
    """Makes the addresses in Starlette's redirects relative, and adds the prefix to paths."""
    location = urlsplit(headers.get("location", ""))
    if location.netloc and location.netloc == asked.get("host"):
        headers["location"] = location._replace(scheme="", netloc="").geturl()
    elif prefix and not location.netloc and location.path.startswith("/"):
        headers["location"] = prefix + location.geturl()
