"""What a generator's steps took."""

from __future__ import annotations

from prometheus_client import Counter, Histogram

from dualprocess.v1 import generator_pb2 as pb

_SECONDS = Histogram(
    "dualprocess_step_seconds",
    "How long the phases of a step took; of the VLM its own time, of the wire the rest of its "
    "call, and all of it as total.",
    ["generator", "phase"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300),
)
_SKIPPED = Counter(
    "dualprocess_steps_skipped_total",
    "Steps that changed nothing, since a number in them was not finite.",
    ["generator"],
)


def step_made(generator: str, timings: pb.StepTimings) -> None:
    for phase in ("forward", "vlm", "wire", "backward", "total"):
        # The two processes' clocks run apart by a little.
        _SECONDS.labels(generator, phase).observe(max(0.0, getattr(timings, phase)))
    # There from the first step on, at 0: what begins with its first skip has no rate.
    _SKIPPED.labels(generator)


def step_skipped(generator: str) -> None:
    _SKIPPED.labels(generator).inc()
