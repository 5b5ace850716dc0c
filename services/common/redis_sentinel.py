"""Redis behind sentinels: `redis+sentinel://user:password@host:26379,host2:26379/service/0`.

User, password and the options after the ? are for Redis, as in a plain address. User and password
for the sentinels are the options `sentinel_username` and `sentinel_password`.
`rediss+sentinel://` means TLS to Redis and to the sentinels.
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
    "must be redis+sentinel://host:26379,host2:26379/service/0; in place of service write the name "
    "by which the sentinels know this Redis"
)


@dataclass(frozen=True)
class SentinelAddress:
    """``sentinels`` are hosts and ports. ``redis`` and ``to_sentinels`` are arguments, with
    passwords, for redis-py's clients."""

    sentinels: list[tuple[str, int]]
    service: str
    redis: dict[str, Any] = field(repr=False)
    to_sentinels: dict[str, Any] = field(repr=False)


def is_sentinel(url: str) -> bool:
    return url.partition("://")[0] in SCHEMES


def sentinel_address(url: str) -> SentinelAddress:
    """Parses the address. Raises ``ValueError`` with a remedy; the message never repeats it."""
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
    # redis-py parses only plain addresses. The host in this one does not matter.
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
        raise ValueError(f"{_SHAPE}, with a number as each port") from None
    if not parts.hostname:
        raise ValueError(_SHAPE)
    if port is None:
        port = _PORT
    if fault := host_fault(parts.hostname) or port_fault(port):
        raise ValueError(fault)
    return parts.hostname, port
