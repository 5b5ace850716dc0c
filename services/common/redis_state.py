"""What of a Redis loses jobs, though it lets the service in: said at the start, and in `/readyz`.

All of it stands in INFO, which managed services answer too, where CONFIG is forbidden.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from redis.exceptions import RedisError

from services.common.redis_address import CLUSTER_REFUSAL, blocking_client

OLDEST = (6, 2)
#: A clock may be off by so much before anybody notices.
_SECONDS = 2.0


@dataclass(frozen=True)
class Look:
    """``info`` is Redis's INFO, all sections; ``seconds_ahead`` how far its clock is before this
    machine's."""

    info: Mapping[str, Any]
    seconds_ahead: float

    @property
    def refusal(self) -> str | None:
        """Why no job can run with it."""
        return CLUSTER_REFUSAL if self.info.get("cluster_enabled") else None

    @property
    def findings(self) -> list[str]:
        """What to change, a sentence each."""
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
                f"Redis may throw jobs away when its memory is full: its maxmemory-policy is "
                f"{policy}; set it to noeviction"
            )
        if not self.info.get("aof_enabled", 1):
            found.append(
                "Redis keeps no append-only file: jobs that it took are lost when it is killed; "
                "set appendonly to yes"
            )
        if abs(self.seconds_ahead) > _SECONDS:
            way = "ahead of" if self.seconds_ahead > 0 else "behind"
            found.append(
                f"Redis's clock is {abs(self.seconds_ahead):.0f} s {way} this machine's: times in "
                "jobs and the age of webhook signatures are off; let both follow one time server"
            )
        return found

    def _is_old(self, version: str) -> bool:
        try:
            return tuple(int(part) for part in version.split(".")[:2]) < OLDEST
        except ValueError:
            return False


async def look(redis: Any) -> Look:
    """By the service's own client. Raises what that does."""
    begin = time.time()
    seconds, micros = await redis.time()
    middle = (begin + time.time()) / 2
    return Look(await redis.info("everything"), seconds + micros / 1e6 - middle)


def first_look(url: str) -> Look | None:
    """``None`` while Redis is away, and where it tells nothing of itself."""
    client = blocking_client(url, socket_connect_timeout=2, socket_timeout=2)
    try:
        begin = time.time()
        seconds, micros = client.time()
        middle = (begin + time.time()) / 2
        return Look(client.info("everything"), seconds + micros / 1e6 - middle)
    except RedisError:
        return None
    finally:
        client.close()
