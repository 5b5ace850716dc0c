"""Calls of VLMs, as whoever makes them sees them: with the way there and back."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import grpc
from prometheus_client import Counter, Gauge, Histogram

from services.common.metrics import CALL_SECONDS

_SECONDS = Histogram(
    "dualprocess_vlm_call_seconds",
    "How long calls of a VLM took, by how they ended.",
    ["vlm", "method", "code"],
    buckets=CALL_SECONDS,
)
_IN_FLIGHT = Gauge(
    "dualprocess_vlm_calls_in_flight", "Calls of a VLM that have no answer yet.", ["vlm"]
)
_RETRIES = Counter(
    "dualprocess_vlm_retries_total",
    "Calls that were made again since a VLM was away, late or failed.",
    ["vlm"],
)


@contextlib.contextmanager
def vlm_call(vlm: str, method: str) -> Iterator[None]:
    """One call of the VLM, a preset's name, is made within."""
    begin, code = time.perf_counter(), "CANCELLED"
    # There from the first call on, at 0: what begins with its first retry has no rate.
    _RETRIES.labels(vlm)
    try:
        with _IN_FLIGHT.labels(vlm).track_inprogress():
            yield
        code = grpc.StatusCode.OK.name
    except grpc.aio.AioRpcError as error:
        code = error.code().name
        raise
    finally:
        _SECONDS.labels(vlm, method, code).observe(time.perf_counter() - begin)


def vlm_retried(vlm: str) -> None:
    """The VLM gave no answer, and is asked again."""
    _RETRIES.labels(vlm).inc()
