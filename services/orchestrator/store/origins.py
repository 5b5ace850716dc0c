"""What a job was asked for by: kept with it, so that whoever works on it can tell."""

from __future__ import annotations

from services.common import trail
from services.common.trail import Trail, sane_id
from services.orchestrator.store import redis as keys

_REQUEST = "request"


def origin_fields() -> dict[str, str]:
    """What is stored of the request at hand with a job that it makes."""
    request = trail.current().request
    return {_REQUEST: request} if request else {}


async def trail_of(job_id: str, redis: keys.Client) -> Trail:
    """The job, and the request that made it."""
    request = await redis.hget(keys.job_key(job_id), _REQUEST)
    return Trail(job_id, sane_id(request or ""))
