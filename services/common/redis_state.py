"""Settings of Redis that may lose jobs. They are logged at the start and named in `/readyz`.

They are read from INFO, which hosted Redis services allow as well, and not from CONFIG, which some
forbid.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from redis.exceptions import NoPermissionError, RedisError

from services.common.redis_address import CLUSTER_REFUSAL, blocking_client

OLDEST = (6, 2)
#: A difference between the clocks that is still accepted.
_SECONDS = 2.0


@dataclass(frozen=True)
class Look:
    """``info`` is all sections of Redis's INFO. ``seconds_ahead`` is Redis's clock minus this
    machine's."""

    info: Mapping[str, Any]
    seconds_ahead: float

    @property
    def refusal(self) -> str | None:
        """Why no job can run with this Redis; ``None`` if jobs can."""
        return CLUSTER_REFUSAL if self.info.get("cluster_enabled") else None

    @property
    def findings(self) -> list[str]:
        """What to change, one sentence for each setting."""
        found = []
        version = str(self.info.get("redis_version", ""))
        if self._is_old(version):
            oldest = ".".join(map(str, OLDEST))
            found.append(
                f"Redis {version} is older than {oldest}, which the service needs: upgrade it"
            )
        policy = self.info.get("maxmemory_policy", "noeviction")
        if policy != "noeviction":
            found.append(
                f"Redis may delete jobs when its memory is full: its maxmemory-policy is "
                f"{policy}; set it to noeviction"
            )
        if not self.info.get("aof_enabled", 1):
            found.append(
                "Redis writes no append-only file: if it is killed, it loses jobs that were "
                "accepted; set appendonly to yes"
            )
        if abs(self.seconds_ahead) > _SECONDS:
            way = "ahead of" if self.seconds_ahead > 0 else "behind"
            found.append(
                f"Redis's clock is {abs(self.seconds_ahead):.0f} s {way} this machine's: times in "
                "jobs and in webhook signatures are wrong; let both machines use one time server"
            )
        return found

    def _is_old(self, version: str) -> bool:
        try:
            return tuple(int(part) for part in version.split(".")[:2]) < OLDEST
        except ValueError:
            return False


def _seconds_ahead(told: tuple[int, int], begin: float) -> float:
    """By an answer to TIME that was asked for at ``begin`` and came just now."""
    seconds, micros = told
    return seconds + micros / 1e6 - (begin + time.time()) / 2


async def look(redis: Any) -> Look:
    """The same through the service's own client. Raises the client's errors."""
    begin = time.time()
    ahead = _seconds_ahead(await redis.time(), begin)
    try:
        return Look(await redis.info("everything"), ahead)
    except NoPermissionError:
        # A user without @dangerous may do all that the service needs, but not this.
        return Look({}, ahead)


def first_look(url: str) -> Look | None:
    """Asks Redis once. ``None`` if it does not answer, or does not allow INFO."""
    client = blocking_client(url, socket_connect_timeout=2, socket_timeout=2)
    try:
        begin = time.time()
        ahead = _seconds_ahead(client.time(), begin)
        return Look(client.info("everything"), ahead)
    except RedisError:
        return None
    finally:
        client.close()
