"""Reads what a proxy in front of the service reports: the path's prefix, the host, the scheme, and
the client's address."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.orchestrator.api.client_address import Network, address_of, is_in, sender
from services.orchestrator.api.hosts import AUTHORITY

PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)*")
#: Anybody can send these headers, and Gradio believes some of them, so they are removed.
_HEADERS = frozenset(
    {
        b"forwarded",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-prefix",
        b"x-forwarded-proto",
        b"x-gradio-server",
    }
)


def networks(text: str) -> list[Network]:
    """The networks in a list of addresses and networks, separated by commas; ``*`` is all. Raises
    ``ValueError``."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    every = ["0.0.0.0/0", "::/0"] if "*" in names else []
    return [ipaddress.ip_network(name, strict=False) for name in every or names]


#: In a request's scope: where its route leads beyond this service.
_ELSEWHERE = "dualprocess.elsewhere"


class Proxied:
    """ASGI middleware: requests come in as the proxy got them.

    With the prefix or without, since some proxies strip it and some do not: behind here it is
    ``root_path`` and ``path`` begins with it. Who is not ``trusted`` can't say what the request was
    like. Redirects name no host, but for ``redirect_elsewhere``: what the browser asked for is
    right.
    """

    def __init__(self, app: ASGIApp, *, root_path: str, trusted: list[Network]) -> None:
        self._app = app
        self._root_path = root_path
        self._trusted = trusted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        peer = scope["client"][0] if scope.get("client") else ""
        trusts = is_in(address_of(peer), self._trusted)
        told = Headers(scope=scope) if trusts else Headers({})
        headers = [pair for pair in scope["headers"] if pair[0] not in _HEADERS]
        scheme, host = _first(told, "x-forwarded-proto"), _first(told, "x-forwarded-host")
        if AUTHORITY.fullmatch(host):
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
        elsewhere = seen[_ELSEWHERE] = set[str]()
        if scheme in ("http", "https"):
            seen["scheme"] = scheme
        if passed := ",".join(told.getlist("x-forwarded-for")):
            seen["client"] = (sender(peer, passed, self._trusted), 0)

        async def answered(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if headers.get("location") not in elsewhere:
                    _relocate(headers, prefix)
            await send(message)

        await self._app(seen, receive, answered)


def redirect_elsewhere(scope: Scope, url: str) -> Response:
    """A redirect to ``url``, which is not of this service."""
    scope[_ELSEWHERE].add(url)
    headers = {"Location": url, "Cache-Control": "private, no-store"}
    return Response(status_code=307, headers=headers)


def _first(headers: Headers, name: str) -> str:
    return headers.get(name, "").partition(",")[0].strip()


def _relocate(headers: MutableHeaders, prefix: str) -> None:
    """Makes the addresses in Starlette's redirects relative, and adds the prefix to paths. No
    redirect leads to another host, so none needs to name one."""
    if "location" not in headers:
        return
    location = urlsplit(headers["location"])
    if location.scheme or location.netloc:
        # A path that begins with two slashes would name a host again.
        path = "/" + location.path.lstrip("/")
        headers["location"] = location._replace(scheme="", netloc="", path=path).geturl()
    elif prefix and location.path.startswith("/"):
        headers["location"] = prefix + location.geturl()
