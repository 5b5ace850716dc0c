"""The names that this service answers to.

A web page can make its own host name point to this machine (DNS rebinding). Then the browser takes
page and service for one origin. An IP address can't be misused like that.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection

from starlette.types import ASGIApp, Receive, Scope, Send

from dualprocess.schemas import Problem
from services.orchestrator.api.refusals import refuse

#: The form of a Host header: a name or an address, with or without a port.
AUTHORITY = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?")
#: The form of a name in the setting.
NAME = re.compile(r"(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")


class Names:
    """IP addresses, localhost, and the names in ``more``, where ``*.example.org`` means all names
    below it and ``*`` every name."""

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
    """ASGI middleware: 421 for a host that is not in ``names``, 400 for one that is not a host.

    Every browser sends a Host header, so a request without one is not from a web page.
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
                title="The Host header does not name a host",
                detail="Send one Host header: a name or an address, with or without a port, like "
                "127.0.0.1:8000.",
            )
        if self._names.have(host):
            return None
        return Problem(
            status=421,
            title=f"This service does not answer to the name {host}",
            detail="Use its IP address, or localhost. Whoever runs the service can add names with "
            "--allowed-hosts (DUALPROCESS_ALLOWED_HOSTS).",
        )


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True
