"""Health checks and metrics: whether the service lives and can work, and how many jobs wait."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest

from services.common.redis_state import look
from services.orchestrator.api.auth import ADMIN
from services.orchestrator.api.problems import ProblemError
from services.orchestrator.api.state import StateDep

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


@router.head("/metrics", dependencies=[ADMIN], include_in_schema=False)
@router.get("/metrics", response_class=PlainTextResponse, dependencies=[ADMIN])
async def metrics(state: StateDep) -> Response:
    """The service's metrics, in Prometheus's text format."""
    registry = CollectorRegistry()
    for name, what, counts in (
        ("depth", "Jobs that wait.", await state.jobs.queue_depths()),
        ("running", "Jobs under a lease.", await state.jobs.queues_running()),
    ):
        labels = ["generator", "vlms"]
        gauge = Gauge(f"dualprocess_queue_{name}", what, labels, registry=registry)
        for pair, count in counts.items():
            generator, _, vlms = pair.partition("|")
            gauge.labels(generator, vlms).set(count)
    jobs = Gauge("dualprocess_jobs", "Jobs by status.", ["status"], registry=registry)
    for status, count in (await state.jobs.by_status()).items():
        jobs.labels(status).set(count)
    running = Gauge("dualprocess_jobs_running", "Jobs under a lease.", registry=registry)
    running.set(await state.jobs.running())
    workers = Gauge("dualprocess_workers_live", "Workers that report.", registry=registry)
    workers.set(len(await state.workers.live()))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
