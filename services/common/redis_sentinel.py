"""Redis behind sentinels: `redis+sentinel://user:password@host:26379,host2:26379/service/0`.

User, password and the options behind the ? are Redis's own, as in a plain address; those of the
sentinels are the options `sentinel_username` and `sentinel_password`. `rediss+sentinel://` is TLS
to Redis and to the sentinels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from redis.connection import SSLConnection, parse_url

from dualprocess.urls import host_fault, port_fault

SCHEMES = {"redis+sentinel": "redis", "rediss+sentinel": "rediss"}
_PORT = 26379
_SHAPE = (
    "must be redis+sentinel://host:26379,host2:26379/service/0, with the name that the sentinels "
    "have for Redis in place of service"
)


@dataclass(frozen=True)
class SentinelAddress:
    """``sentinels`` by host and port. ``redis`` and ``to_sentinels`` are arguments of redis-py's
    clients: passwords are in them."""

    sentinels: list[tuple[str, int]]
    service: str
    redis: dict[str, Any] = field(repr=False)
    to_sentinels: dict[str, Any] = field(repr=False)


def is_sentinel(url: str) -> bool:
    return url.partition("://")[0] in SCHEMES


def sentinel_address(url: str) -> SentinelAddress:
    """Raises ``ValueError`` with a remedy; no sentence repeats the address."""
    parts = urlsplit(url)
    who, at, hosts = parts.netloc.rpartition("@")
    service, _, database = parts.path.removeprefix("/").partition("/")
    if not service or (database and not database.isdecimal()):
        raise ValueError(_SHAPE)
    sentinels = [_place(host) for host in hosts.split(",")]
    options = dict(parse_qsl(parts.query))
    own = {
        name: options.pop(f"sentinel_{name}")
        for name in ("username", "password")
        if f"sentinel_{name}" in options
    }
    # redis-py reads a plain address; which host it names doesn't matter.
    plain = f"{SCHEMES[parts.scheme]}://{who}{at}sentinel/{database or 0}?{urlencode(options)}"
    redis = dict(parse_url(plain))  # type: ignore[no-untyped-call]
    del redis["host"]
    tls = {"ssl": True} if redis.pop("connection_class", None) is SSLConnection else {}
    ssl = {name: value for name, value in redis.items() if name.startswith("ssl_")}
    return SentinelAddress(sentinels, service, redis | tls, own | tls | ssl)


def _place(host: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{host}")
        port = parts.port
    except ValueError:
        raise ValueError(f"{_SHAPE}, and a number as each port") from None
    if not parts.hostname:
        raise ValueError(_SHAPE)
    if port is None:
        port = _PORT
    if fault := host_fault(parts.hostname) or port_fault(port):
        raise ValueError(fault)
    return parts.hostname, port
