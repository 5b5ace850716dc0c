"""For what watches the service: is it alive, can it work, how much waits."""

from __future__ import annotations

import logging
from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest
from redis.exceptions import RedisError

from services.common.redis_state import look
from services.orchestrator.api.auth import ADMIN
from services.orchestrator.api.problems import ProblemError
from services.orchestrator.api.site_metrics import site_metrics
from services.orchestrator.api.state import StateDep

log = logging.getLogger(__name__)

router = APIRouter(tags=["health"])


@router.head("/healthz", response_class=PlainTextResponse, include_in_schema=False)
@router.get("/healthz", response_class=PlainTextResponse)
async def healthz() -> str:
    """This process answers."""
    return "ok"


@router.head("/readyz", response_class=PlainTextResponse, include_in_schema=False)
@router.get("/readyz", response_class=PlainTextResponse)
async def readyz(
    state: StateDep,
    worker: Annotated[bool, Query(description="Ask for a live worker as well.")] = False,
) -> str:
    """Redis answers as well; 503 while it is away. Behind `ok`, a line for all of it that may
    lose jobs."""
    seen = await look(state.redis)
    if seen.refusal:
        raise ProblemError(503, "This Redis will not do", seen.refusal)
    if worker and not await state.workers.live():
        raise ProblemError(503, "No worker is alive", "Start one; jobs wait for it meanwhile.")
    return "\n".join(["ok", *seen.findings])


@router.head("/metrics", dependencies=[ADMIN], include_in_schema=False)
@router.get("/metrics", response_class=PlainTextResponse, dependencies=[ADMIN])
async def metrics(state: StateDep) -> Response:
    """In Prometheus's text format: what this process did, and what is true of the whole service.

    Of several API processes one tells the second, so that sums over them are right."""
    told = generate_latest(REGISTRY)
    try:
        if await state.reporter.asked():
            told += await site_metrics(state.jobs, state.workers)
    except RedisError as error:
        # Away, or full: what this process did is told even then.
        log.warning("Redis can't tell how the service is: %s", error)
    return Response(told, media_type=CONTENT_TYPE_LATEST)
