"""Traces by OpenTelemetry: off, and free, unless ``OTEL_…`` says where they go.

A job is one trace, from its request through queue and worker to generator and VLM. Nothing here
imports the SDK before ``configure_tracing`` has found that it is wanted.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import grpc

    from services.common.traces.recording import Recording

log = logging.getLogger(__name__)

#: Each of them says that traces are wanted.
_SAYING = (
    "OTEL_TRACES_EXPORTER",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
)

_recording: Recording | None = None


def configure_tracing(service: str) -> None:
    """From now on this process records what it does, if the environment says where to."""
    said = [name for name in _SAYING if os.environ.get(name, "").strip()]
    disabled = os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    if not said or disabled or os.environ.get("OTEL_TRACES_EXPORTER", "").strip() == "none":
        return
    if find_spec("opentelemetry.instrumentation.grpc") is None:
        log.warning(
            "%s is set, and nothing is traced: the packages for it are missing; "
            "pip install 'dualprocess[otel]', or unset it",
            said[0],
        )
        return
    from services.common.traces.export import exporter
    from services.common.traces.recording import Recording

    found = exporter()
    if found is not None:
        record(Recording(service, found))


def record(recording: Recording | None) -> None:
    """What is done from now on goes there; ``None`` for nowhere."""
    global _recording
    _recording = recording


def is_on() -> bool:
    return _recording is not None


def client_interceptors() -> Sequence[grpc.aio.ClientInterceptor]:
    """What a channel needs so that its calls are recorded, and say which trace they are of."""
    return _recording.client_interceptors() if _recording else ()


def server_interceptors() -> Sequence[grpc.aio.ServerInterceptor]:
    return _recording.server_interceptors() if _recording else ()


def watch_app(app: Any) -> None:
    """Requests of the FastAPI app are recorded from now on."""
    if _recording:
        _recording.watch_app(app)


def carried() -> dict[str, str]:
    """What says, kept with a job, which trace it is of."""
    return _recording.carried() if _recording else {}


def trace_id() -> str:
    """Of the trace at hand, in hexadecimal; empty where there is none."""
    return _recording.trace_id() if _recording else ""


@contextlib.contextmanager
def job_span(
    carrier: Mapping[str, str],
    *,
    waited_seconds: float,
    is_linked: bool,
    attributes: Mapping[str, str | int],
) -> Iterator[None]:
    """An attempt at a job is made within; before it the job waited.

    ``carrier`` is what ``carried`` said at its submission. With ``is_linked`` the job has a trace
    of its own, which names that one: requests that make many jobs are no place for all of them.
    """
    if _recording is None:
        yield
        return
    with _recording.job_span(carrier, waited_seconds, attributes, is_linked=is_linked):
        yield


def note_outcome(outcome: str, *, failed: bool) -> None:
    """How the attempt at hand ended."""
    if _recording:
        _recording.note_outcome(outcome, failed=failed)
