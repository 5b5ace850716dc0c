"""Redis's address: what it must be, and whether Redis lets this process in.

No sentence of this file repeats an address: the password is in it.
"""

from __future__ import annotations

import socket
import ssl
from typing import Annotated
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError
from redis.retry import Retry

_SCHEMES = ("redis", "rediss", "unix")
_ESCAPE = (
    "must have the characters / ? # @ [ ] of its user and password escaped, like %2F for / and "
    "%23 for #"
)
#: Redis's words for the number of a database that it has not.
_NO_DATABASE = "index is out of range"


def checked_redis_url(url: str) -> str:
    """Checks the address. Raises ``ValueError`` with a remedy if it can't be the address of a
    Redis."""
    url = url.strip()
    if not url.isprintable():
        raise ValueError("must be one line without control characters")
    scheme, found, _ = url.partition("://")
    if scheme not in _SCHEMES:
        what = "begins with another scheme" if found else "has no scheme"
        raise ValueError(
            f"{what}; begin it with redis://, rediss:// for TLS, or unix:// for a socket, like "
            "redis://127.0.0.1:6379/0"
        )
    try:
        parts = urlsplit(url)
        # Redis-py's parser must be able to read the address.
        _ = parts.port
    except ValueError:
        # Without the cause: it quotes a part of the password as the port.
        raise ValueError(f"{_ESCAPE}, and a number as its port") from None
    # Such a character would end the user, password and host.
    if "@" in parts.path + parts.query + parts.fragment and parts.scheme != "unix":
        raise ValueError(_ESCAPE)
    if parts.fragment:
        raise ValueError(f"{_ESCAPE}; nothing may follow a #")
    if parts.scheme == "unix":
        _check_socket(parts)
    elif parts.path.strip("/") and not parts.path.removeprefix("/").isdecimal():
        raise ValueError("must end with the number of a database, like /0, or have no path")
    _check_options(url)
    return url


def _check_socket(parts: SplitResult) -> None:
    if parts.netloc and not parts.netloc.endswith("@"):
        raise ValueError(
            "must be unix:///path/of/the/socket, with a password unix://:password@/path/…; "
            "escape / ? # @ in the password, like %2F for /"
        )


def _check_options(url: str) -> None:
    """redis-py checks options only when it connects, and then raises a traceback."""
    try:
        client = Redis.from_url(url)
        client.connection_pool.make_connection()
    except (TypeError, ValueError, RedisError):
        raise ValueError("has an option after the ? that redis-py does not know") from None


def redis_refusal(url: str) -> str | None:
    """Why Redis will never let this process in, with the remedy. ``None`` if it does, and if it
    does not answer yet."""
    client = Redis.from_url(
        url, socket_connect_timeout=2, socket_timeout=2, retry=Retry(NoBackoff(), 0)
    )
    try:
        client.ping()
    except NoPermissionError:
        return (
            "the Redis user in this address lacks permissions that the service needs; give it +@all"
        )
    except AuthenticationError:
        return (
            "Redis refuses the user or password of this address, or asks for one and the address "
            "has none; write redis://user:password@host:port/0, or redis://:password@host:port/0"
        )
    except ResponseError as error:
        if _NO_DATABASE in str(error):
            return "Redis has no database with this number; it is usually 0"
        if str(error).startswith("DENIED"):
            return "Redis is in protected mode, which lets no other machines in; give it a password"
        return None
    except RedisError as error:
        return _tls_fault(error, url)
    finally:
        client.close()
    return None


def _tls_fault(error: BaseException, url: str) -> str | None:
    if url.startswith("rediss:") and _speaks_plainly(urlsplit(url)):
        return "TLS with Redis fails: this Redis has no TLS; write redis:// instead of rediss://"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return (
                f"TLS with Redis fails ({cause.reason or 'no reason given'}); rediss:// needs a "
                "Redis that has TLS, with a certificate that this machine trusts"
            )
        cause = cause.__cause__ or cause.__context__
    return None


def _speaks_plainly(parts: SplitResult) -> bool:
    """A Redis without TLS waits for the rest of a TLS greeting, just like a slow one."""
    try:
        place = (parts.hostname or "localhost", parts.port or 6379)
        with socket.create_connection(place, timeout=2) as connection:
            connection.sendall(b"PING\r\n")
            # Its answer, or its demand for a password.
            return connection.recv(1) in (b"+", b"-")
    except OSError:
        return False


RedisUrl = Annotated[str, AfterValidator(checked_redis_url)]
