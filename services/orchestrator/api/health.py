"""Health checks, metrics and the version: whether the service lives, how it does, which it is."""

from __future__ import annotations

import logging
from importlib import metadata
from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest
from redis.exceptions import RedisError

from dualprocess.schemas import Version
from services.common.redis_state import look
from services.orchestrator.api.auth import ADMIN
from services.orchestrator.api.problems import ProblemError
from services.orchestrator.api.site_metrics import site_metrics
from services.orchestrator.api.state import StateDep
from services.orchestrator.store.counts import Counts

log = logging.getLogger(__name__)

router = APIRouter(tags=["health"])


@router.head("/healthz", response_class=PlainTextResponse, include_in_schema=False)
@router.get("/healthz", response_class=PlainTextResponse)
async def healthz() -> str:
    """Says that this process answers."""
    return "ok"


@router.head("/readyz", response_class=PlainTextResponse, include_in_schema=False)
@router.get("/readyz", response_class=PlainTextResponse)
async def readyz(
    state: StateDep,
    worker: Annotated[bool, Query(description="Check for a live worker as well.")] = False,
) -> str:
    """Says that Redis answers as well; 503 while it is away. After `ok` there is a line for each
    setting of Redis that may lose jobs."""
    seen = await look(state.redis)
    if seen.refusal:
        raise ProblemError(503, "This Redis can't be used", seen.refusal)
    if worker and not await state.workers.live():
        raise ProblemError(503, "No worker is alive", "Start one; until then jobs wait.")
    return "\n".join(["ok", *seen.findings])


@router.get("/v1/version")
async def version() -> Version:
    """The version of the service. It needs no key."""
    return Version(version=metadata.version("dualprocess"))


@router.head("/metrics", dependencies=[ADMIN], include_in_schema=False)
@router.get("/metrics", response_class=PlainTextResponse, dependencies=[ADMIN])
async def metrics(state: StateDep) -> Response:
    """Metrics for Prometheus, as text: what this process did, and the state of the whole service.

    If there are several API processes, only one of them shows the state of the service, so that
    sums over all of them are right."""
    told = generate_latest(REGISTRY)
    try:
        if await state.reporter.asked():
            told += await site_metrics(Counts(state.redis), state.workers)
    except RedisError as error:
        # What this process did is shown even while Redis is away or full.
        log.warning(
            "the metrics are without the state of the service, since Redis fails: %s", error
        )
    return Response(told, media_type=CONTENT_TYPE_LATEST)
