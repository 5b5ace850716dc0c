"""The names that this service answers to.

A web page can have a name of its own lead to this machine (DNS rebinding): to the browser, page and
service are of one origin then. An address can't be made to lead elsewhere.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection

from starlette.types import ASGIApp, Receive, Scope, Send

from dualprocess.schemas import Problem
from services.orchestrator.api.refusals import refuse

#: Of a Host header: a name or an address, perhaps with a port.
AUTHORITY = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?")
#: Of the setting.
NAME = re.compile(r"(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")


class Names:
    """Addresses, this machine's own names, and those of ``more``: ``*.example.org`` for all below
    it, ``*`` for every name."""

    def __init__(self, more: Collection[str]) -> None:
        self._more = {name.lower() for name in more if name}

    def have(self, authority: str) -> bool:
        """Whether ``authority``, which ``AUTHORITY`` matches, is one of them."""
        name = authority.lower()
        if not name.endswith("]"):
            name = name.rpartition(":")[0] or name
        name = name.rstrip(".")
        if "*" in self._more or name in self._more or name == "localhost" or _is_address(name):
            return True
        parents = name.split(".")[1:]
        below = {"*." + ".".join(parents[n:]) for n in range(len(parents))}
        return bool(below & (self._more | {"*.localhost"}))


class AskedHost:
    """ASGI middleware: 421 for a name that is none of ``names``, 400 for what is no name.

    Every browser says by which name it asks; who says nothing is none.
    """

    def __init__(self, app: ASGIApp, names: Names) -> None:
        self._app = app
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket") and (problem := self._problem(scope)):
            await refuse(problem, scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _problem(self, scope: Scope) -> Problem | None:
        asked = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        if not asked:
            return None
        host = asked[0]
        if len(asked) > 1 or not AUTHORITY.fullmatch(host):
            return Problem(
                status=400,
                title="The Host header names no host",
                detail="Host must be there once: a name or an address, perhaps with a port, like "
                "127.0.0.1:8000.",
            )
        if self._names.have(host):
            return None
        return Problem(
            status=421,
            title=f"This service does not answer to the name {host}",
            detail="Ask by its address, or by localhost. Whoever runs it lets it answer to more "
            "names by --allowed-hosts (DUALPROCESS_ALLOWED_HOSTS).",
        )


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True
