"""The caller of a request, and what the caller may do.

Without a key a request is refused before its body is read, unless its path is in ``OPEN_PATHS``.
Its route says with ``SUBMIT``, ``READ`` or ``ADMIN`` which scope it needs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import unquote

from fastapi import Depends, Request, Security
from fastapi.security import HTTPBearer, SecurityScopes
from redis.exceptions import ConnectionError, TimeoutError
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as Connection

from dualprocess import printable
from dualprocess.schemas import ANONYMOUS, Job
from services.orchestrator.api.client_address import customer
from services.orchestrator.api.problems import ProblemError, redis_is_away, respond
from services.orchestrator.api.shown_route import shown_route
from services.orchestrator.api.wrong_key_log import WrongKeyLog
from services.orchestrator.api.wrong_keys import WrongKeys
from services.orchestrator.route_path import route_path
from services.orchestrator.store.keys import ApiKeys, Scope
from services.orchestrator.store.quotas import Quotas
from services.orchestrator.ui import paths

#: Paths that need no key: health checks and documentation, which has the version as well.
OPEN_PATHS = frozenset(
    {
        "/healthz",
        "/readyz",
        "/v1/version",
        "/docs",
        "/docs/oauth2-redirect",
        "/redoc",
        "/openapi.json",
    }
)

_SCHEME = HTTPBearer(
    scheme_name="ApiKey",
    bearerFormat="dp_<id>_<secret>",
    description="Made on the server: `dualprocess keys create --name me --scope submit`.",
    # ``Doors`` has already refused; this only documents the key.
    auto_error=False,
)
_REALM = 'Bearer realm="dualprocess"'
_INVALID = f'{_REALM}, error="invalid_token"'
#: Letters of a method that the log shows; no method that is used has more.
_METHOD_LETTERS = 10


@dataclass(frozen=True)
class Caller:
    """The sender of the request: the holder of a key, or anyone if the service needs no keys."""

    owner: str
    scopes: frozenset[Scope]
    quotas: Quotas | None
    #: The caller's key, to check later whether it is still valid.
    key: str | None

    @property
    def key_id(self) -> str | None:
        """The id of the key, if there is one. Limits for each key are counted under it."""
        return None if self.key is None else self.owner

    @property
    def is_admin(self) -> bool:
        return Scope.ADMIN in self.scopes

    @property
    def sees(self) -> str | None:
        """The owner whose jobs the caller may see; ``None`` for all owners."""
        return None if self.is_admin else self.owner

    def may_see(self, job: Job) -> bool:
        return self.sees in (None, job.owner)


_ANYONE = Caller(ANONYMOUS, frozenset({Scope.ADMIN}), quotas=None, key=None)


class Doors:
    """ASGI middleware: 401 without a valid key, if one is ``required``; 429 for a wrong key from an
    address that has to wait."""

    def __init__(self, app: ASGIApp, *, required: bool, wrong_keys: WrongKeys) -> None:
        self._app = app
        self._required = required
        self._wrong_keys = wrong_keys
        self._log = WrongKeyLog()

    async def __call__(self, scope: Connection, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not _is_open(scope):
            try:
                caller = await self._caller(scope)
            except ProblemError as error:
                await respond(error.problem, error.headers)(scope, receive, send)
                return
            except (ConnectionError, TimeoutError) as error:
                await redis_is_away(error)(scope, receive, send)
                return
            scope.setdefault("state", {})["caller"] = caller
        await self._app(scope, receive, send)

    async def _caller(self, scope: Connection) -> Caller:
        if not self._required:
            return _ANYONE
        keys: ApiKeys = scope["app"].state.dualprocess.api_keys
        key = _key(scope)
        if not key:
            raise ProblemError(
                401,
                "The request carries no API key",
                "Send the header Authorization: Bearer dp_…; the client and the command line take "
                "the key from DUALPROCESS_API_KEY. `dualprocess keys create` on the server makes "
                "one.",
                {"WWW-Authenticate": _REALM},
            )
        try:
            return await _identify(keys, key)
        except _WrongKey as error:
            address = customer(scope)
            counted = self._wrong_keys.count(address)
            if counted.waits:
                raise _too_many(math.ceil(counted.waits)) from None
            self._log.write(error.fault, address, _shown_route(scope), unseen=counted.unseen)
            raise error.problem from None


def owner_of(scope: Connection) -> str:
    """The owner of a request that ``Doors`` has let in."""
    caller: Caller = scope["state"]["caller"]
    return caller.owner


def _is_open(scope: Connection) -> bool:
    path = route_path(scope)
    return path in OPEN_PATHS or paths.is_static(scope["method"], path)


def _key(scope: Connection) -> str | None:
    scheme, _, key = Headers(scope=scope).get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return key.strip()
    # Only the page's own requests send it as a cookie, since they can't add a header.
    if paths.is_page(route_path(scope)):
        return unquote(HTTPConnection(scope).cookies.get(paths.KEY_COOKIE, ""))
    return None


async def _identify(keys: ApiKeys, key: str) -> Caller:
    """The key's holder. Raises ``_WrongKey`` for a key that is not valid."""
    found = await keys.find(key)
    if found is None:
        raise _WrongKey("is unknown", "is unknown")
    if found.revoked_at is not None:
        raise _WrongKey("was revoked", f"{found.id} was revoked")
    return Caller(found.id, found.scopes, found.quotas, key)


class _WrongKey(Exception):
    """``fault`` says nothing about the key; ``told`` is for the one who sent it."""

    def __init__(self, fault: str, told: str) -> None:
        super().__init__(fault)
        self.fault = fault
        self.problem = ProblemError(
            401,
            f"The API key {told}",
            "Authorization must have a complete key, as `dualprocess keys create` showed it; if "
            "it is revoked, ask for a new one.",
            {"WWW-Authenticate": _INVALID},
        )


def _too_many(seconds: int) -> ProblemError:
    return ProblemError(
        429,
        "The API key is wrong, and so were many before it",
        f"They came from your address. The next wrong key is checked in {seconds} s; a right one "
        "is accepted at any time. Ask whoever runs the service for a new key.",
        {"WWW-Authenticate": _INVALID, "Retry-After": str(seconds)},
    )


def _shown_route(scope: Connection) -> str:
    """For a log."""
    method = printable.line(scope["method"])[:_METHOD_LETTERS]
    return f"{method} {shown_route(scope) or 'an unknown path'}"


def _caller(request: Request) -> Caller:
    caller: Caller = request.state.caller
    return caller


CallerDep = Annotated[Caller, Depends(_caller)]


def _needs(caller: CallerDep, needed: SecurityScopes, _: Annotated[Any, Depends(_SCHEME)]) -> None:
    for scope in needed.scopes:
        if scope not in caller.scopes and not caller.is_admin:
            has = ", ".join(sorted(caller.scopes))
            raise ProblemError(
                403,
                f"The API key lacks the scope {scope}",
                f"Key {caller.owner} has {has}; use one that was made with --scope {scope}.",
                {"WWW-Authenticate": f'{_REALM}, error="insufficient_scope", scope="{scope}"'},
            )


SUBMIT = Security(_needs, scopes=[Scope.SUBMIT])
READ = Security(_needs, scopes=[Scope.READ])
ADMIN = Security(_needs, scopes=[Scope.ADMIN])
