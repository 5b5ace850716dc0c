"""For what watches the service: is it alive, can it work, how much waits."""

from __future__ import annotations

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest

from services.orchestrator.api.state import StateDep

router = APIRouter(tags=["health"])


@router.get("/healthz", response_class=PlainTextResponse)
async def healthz() -> str:
    """This process answers."""
    return "ok"


@router.get("/readyz", response_class=PlainTextResponse)
async def readyz(state: StateDep) -> str:
    """Redis answers as well; 503 while it is away."""
    await state.redis.ping()
    return "ok"


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(state: StateDep) -> Response:
    """In Prometheus's text format."""
    registry = CollectorRegistry()
    depth = Gauge(
        "dualprocess_queue_depth", "Jobs that wait.", ["generator", "vlms"], registry=registry
    )
    for pair, jobs in (await state.jobs.queue_depths()).items():
        generator, _, vlms = pair.partition("|")
        depth.labels(generator, vlms).set(jobs)
    running = Gauge("dualprocess_jobs_running", "Jobs under a lease.", registry=registry)
    running.set(await state.jobs.running())
    workers = Gauge("dualprocess_workers_live", "Workers that report.", registry=registry)
    workers.set(len(await state.workers.live()))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
