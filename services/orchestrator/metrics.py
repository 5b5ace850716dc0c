"""What happens to jobs, counted by the process that does it: one that others do as well is
counted by each for itself, so that sums over processes are right."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import Counter, Gauge, Histogram

QUEUE_WAIT = Histogram(
    "dualprocess_queue_wait_seconds",
    "How long jobs that this worker took had waited, pauses between attempts included.",
    ["generator", "vlms"],
    buckets=(0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 14400, 86400),
)
JOBS_ENDED = Counter("dualprocess_jobs_ended_total", "Jobs that this process ended.", ["outcome"])
ATTEMPTS_RETRIED = Counter(
    "dualprocess_attempts_retried_total",
    "Attempts that ended without the job's end, by whose fault that was.",
    ["blame"],
)
LEASES_LOST = Counter(
    "dualprocess_leases_lost_total",
    "Jobs that this worker had to leave, since their lease was over or another's.",
)
LEASES_EXPIRED = Counter(
    "dualprocess_leases_expired_total",
    "Jobs that this worker took from one that had stopped renewing its lease.",
)
WORKER_JOBS = Gauge("dualprocess_worker_jobs", "Jobs that this worker runs.")
WORKER_SLOTS = Gauge("dualprocess_worker_slots", "Jobs that this worker can run at once.")


def vlms_label(vlms: Sequence[str]) -> str:
    """As a queue has them in its name."""
    return "+".join(sorted(vlms))
