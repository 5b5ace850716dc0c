"""A process that records what it does, by the SDK's own instrumentation of gRPC, Redis and HTTP."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import grpc
from opentelemetry import propagate, trace
from opentelemetry.instrumentation.grpc import aio_client_interceptors
from opentelemetry.instrumentation.grpc._aio_server import OpenTelemetryAioServerInterceptor
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Link, SpanKind, StatusCode

from services.common.traces.sampling import NoLoneCalls

#: Asked so often that they say nothing of any job.
_UNWATCHED_PATHS = "healthz,readyz,metrics"


class Recording:
    """Spans of this process, on their way to ``exporter``."""

    def __init__(self, service: str, exporter: SpanExporter) -> None:
        name = os.environ.get("OTEL_SERVICE_NAME", "").strip() or f"dualprocess-{service}"
        self._provider = TracerProvider(resource=Resource.create({SERVICE_NAME: name}))
        self._provider.sampler = NoLoneCalls(self._provider.sampler)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("dualprocess")
        HTTPXClientInstrumentor().instrument(tracer_provider=self._provider)
        with contextlib.suppress(ImportError):
            # Generator and VLM have no Redis.
            from opentelemetry.instrumentation.redis import RedisInstrumentor

            RedisInstrumentor().instrument(tracer_provider=self._provider)

    def client_interceptors(self) -> Sequence[grpc.aio.ClientInterceptor]:
        interceptors: list[grpc.aio.ClientInterceptor] = aio_client_interceptors(  # type: ignore[no-untyped-call]
            tracer_provider=self._provider
        )
        return interceptors

    def server_interceptors(self) -> Sequence[grpc.aio.ServerInterceptor]:
        ours = _Calls(self._tracer, _is_ours)  # type: ignore[no-untyped-call]
        return [ours]

    def watch_app(self, app: Any) -> None:
        # Generator and VLM have no FastAPI.
        from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

        FastAPIInstrumentor.instrument_app(
            app,
            tracer_provider=self._provider,
            excluded_urls=_UNWATCHED_PATHS,
            exclude_spans=["receive", "send"],
        )

    def carried(self) -> dict[str, str]:
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        return carrier

    def trace_id(self) -> str:
        context = trace.get_current_span().get_span_context()
        return trace.format_trace_id(context.trace_id) if context.is_valid else ""

    @contextlib.contextmanager
    def job_span(
        self,
        carrier: Mapping[str, str],
        waited_seconds: float,
        attributes: Mapping[str, str | int],
        *,
        is_linked: bool,
    ) -> Iterator[None]:
        request = propagate.extract(carrier)
        now = time.time_ns()
        queued = now - int(waited_seconds * 1e9)
        links = []
        if is_linked:
            links = [Link(trace.get_current_span(request).get_span_context())]
            request = trace.set_span_in_context(trace.INVALID_SPAN)
        job = self._tracer.start_span(
            "job",
            request,
            SpanKind.CONSUMER,
            attributes,
            links=[link for link in links if link.context.is_valid],
            start_time=queued,
        )
        with trace.use_span(
            job, end_on_exit=True, record_exception=False, set_status_on_exception=False
        ):
            self._tracer.start_span("queue", start_time=queued).end(now)
            yield

    def note_outcome(self, outcome: str, *, failed: bool) -> None:
        span = trace.get_current_span()
        span.set_attribute("dualprocess.outcome", outcome)
        if failed:
            span.set_status(StatusCode.ERROR)

    def close(self) -> None:
        """Sends what is left."""
        self._provider.shutdown()


def _is_ours(call: grpc.HandlerCallDetails) -> bool:
    return not call.method.startswith("/grpc.")


class _Calls(OpenTelemetryAioServerInterceptor):
    """Streaming methods here are coroutines that write, as unary ones are that return: the SDK's
    own way with streams is for generators."""

    def _intercept_aio_server_stream(self, behavior: Any, handler_call_details: Any) -> Any:
        return self._intercept_aio_server_unary(behavior, handler_call_details)  # type: ignore[no-untyped-call]
