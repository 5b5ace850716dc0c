"""Redis's address: what it must be, and whether Redis lets this process in.

No sentence of this file repeats an address: the password is in it.
"""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import SplitResult, unquote, urlsplit

from pydantic import AfterValidator
from redis import Redis, Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError
from redis.retry import Retry

from dualprocess.urls import host_fault, port_fault
from services.common.redis_sentinel import SCHEMES as SENTINEL_SCHEMES
from services.common.redis_sentinel import is_sentinel, sentinel_address

#: File in the data folder of `dualprocess up` with the address of the Redis that it started. It
#: exists while the stack runs.
OWN_ADDRESS = Path("redis", "url")

_SCHEMES = ("redis", "rediss", "unix", *SENTINEL_SCHEMES)
_ESCAPE = (
    "must have the characters / ? # @ [ ] of its user and password escaped, like %2F for / and "
    "%23 for #"
)
#: Why a cluster is refused, and what to use.
CLUSTER_REFUSAL = (
    "this Redis is a cluster. The queue is changed by scripts that read and write many keys in one "
    "step, which a cluster does not allow. Use one Redis; if it must survive the loss of its "
    "machine, use one with replicas and sentinels (redis+sentinel://host:26379/service/0)"
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
            f"{what}; begin it with redis://, rediss:// for TLS, unix:// for a socket, or "
            "redis+sentinel:// for sentinels, like redis://127.0.0.1:6379/0"
        )
    try:
        parts = urlsplit(url)
        # Redis-py's parser must be able to read the address.
        port = None if is_sentinel(url) else parts.port
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
    elif is_sentinel(url):
        sentinel_address(url)
    elif fault := _place_fault(unquote(parts.hostname or ""), port):
        raise ValueError(fault)
    elif parts.path.strip("/") and not parts.path.removeprefix("/").isdecimal():
        raise ValueError("must end with the number of a database, like /0, or have no path")
    _check_options(url)
    return url


def _place_fault(host: str, port: int | None) -> str | None:
    return (host_fault(host) if host else None) or (None if port is None else port_fault(port))


def _check_socket(parts: SplitResult) -> None:
    if parts.netloc and not parts.netloc.endswith("@"):
        raise ValueError(
            "must be unix:///path/of/the/socket, with a password unix://:password@/path/…; "
            "escape / ? # @ in the password, like %2F for /"
        )


def _check_options(url: str) -> None:
    """redis-py checks options only when it connects, and then raises a traceback."""
    try:
        client = blocking_client(url)
        client.connection_pool.make_connection()
    except (TypeError, ValueError, RedisError):
        raise ValueError("has an option after the ? that redis-py does not know") from None


def blocking_client(url: str, **options: Any) -> Redis:
    """A client for checks at the start. Raises what redis-py raises for a wrong address."""
    if not is_sentinel(url):
        return Redis.from_url(url, **options)
    address = sentinel_address(url)
    make: Any = Sentinel
    sentinel = make(address.sentinels, sentinel_kwargs=address.to_sentinels | options, **options)
    client: Redis = sentinel.master_for(address.service, **address.redis)
    return client


def redis_refusal(url: str) -> str | None:
    """Why Redis will never let this process in, with the remedy. ``None`` if it does, and if it
    does not answer yet."""
    client = blocking_client(
        url, socket_connect_timeout=2, socket_timeout=2, retry=Retry(NoBackoff(), 0)
    )
    try:
        client.ping()
        if _is_cluster(client):
            return CLUSTER_REFUSAL
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


def _is_cluster(client: Redis) -> bool:
    try:
        info: Any = client.info("cluster")
    except (NoPermissionError, ResponseError):
        return False
    return bool(info.get("cluster_enabled"))


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
