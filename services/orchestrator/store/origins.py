"""What a job was asked for by: kept with it, so that whoever works on it can tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from services.common import tracing, trail
from services.common.trail import Trail, sane_id
from services.orchestrator.store import redis as keys

_REQUEST = "request"
#: Names of W3C's Trace Context, which is what a request has unless OTEL_PROPAGATORS says otherwise.
_TRACE = ("traceparent", "tracestate")


@dataclass(frozen=True)
class Origin:
    """``trail`` is for logs, ``trace`` for ``tracing``."""

    trail: Trail
    trace: Mapping[str, str]


def origin_fields() -> dict[str, str]:
    """What is stored of the request at hand with a job that it makes."""
    carried = tracing.carried()
    fields = {_REQUEST: trail.current().request} | {name: carried.get(name, "") for name in _TRACE}
    return {name: value for name, value in fields.items() if value}


async def origin_of(job_id: str, redis: keys.Client) -> Origin:
    request, *trace = await redis.hmget(keys.job_key(job_id), _REQUEST, *_TRACE)
    found = {name: value for name, value in zip(_TRACE, trace, strict=True) if value}
    return Origin(Trail(job_id, sane_id(request or "")), found)
