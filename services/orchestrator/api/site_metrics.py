"""What is true of the whole service, whichever process is asked: told by one of them."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from services.orchestrator.store.counts import Counts
from services.orchestrator.store.workers import Workers


async def site_metrics(counted: Counts, workers: Workers) -> bytes:
    """In Prometheus's text format. Raises as Redis does."""
    registry = CollectorRegistry()
    pair = ("generator", "vlms")
    for name, what, counts in (
        ("depth", "Jobs that wait.", await counted.queue_depths()),
        ("running", "Jobs under a lease.", await counted.queues_running()),
    ):
        gauge = Gauge(f"dualprocess_queue_{name}", what, pair, registry=registry)
        for queue, count in counts.items():
            gauge.labels(*_pair(queue)).set(count)
    head = Gauge(
        "dualprocess_queue_head_wait_seconds",
        "For how long the job that is next has waited.",
        pair,
        registry=registry,
    )
    for queue, seconds in (await counted.head_waits()).items():
        head.labels(*_pair(queue)).set(seconds)
    by_status = Gauge("dualprocess_jobs", "Jobs by status.", ["status"], registry=registry)
    for status, count in (await counted.by_status()).items():
        by_status.labels(status).set(count)
    running = Gauge("dualprocess_jobs_running", "Jobs under a lease.", registry=registry)
    running.set(await counted.running())
    live = Gauge("dualprocess_workers_live", "Workers that report.", registry=registry)
    live.set(len(await workers.live()))
    return generate_latest(registry)


def _pair(queue: str) -> tuple[str, str]:
    generator, _, vlms = queue.partition("|")
    return generator, vlms
