"""What comes in over gRPC, counted: how many calls are in flight, and how long each took. What is
logged meanwhile says for which job."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import grpc
from prometheus_client import Gauge, Histogram

from services.common.metrics import CALL_SECONDS
from services.common.trail import Trail, following

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

log = logging.getLogger(__name__)

#: A streaming call lasts as long as its job.
_SECONDS = Histogram(
    "dualprocess_call_seconds",
    "How long gRPC calls to this process took, by how they ended.",
    ["method", "code"],
    buckets=(*CALL_SECONDS, 300, 900, 3600, 14400),
)
_IN_FLIGHT = Gauge(
    "dualprocess_calls_in_flight", "gRPC calls to this process that have not ended.", ["method"]
)


class WatchedCalls(grpc.aio.ServerInterceptor):
    """For methods that are coroutines; gRPC's own services are left out."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None or handler_call_details.method.startswith("/grpc."):
            return handler
        method = handler_call_details.method.rpartition("/")[2]
        if handler.request_streaming:
            return grpc.stream_stream_rpc_method_handler(
                _watched(handler.stream_stream, method, logging.INFO),
                handler.request_deserializer,
                handler.response_serializer,
            )
        return grpc.unary_unary_rpc_method_handler(
            _watched(handler.unary_unary, method, logging.DEBUG),
            handler.request_deserializer,
            handler.response_serializer,
        )


def _watched(behaviour: Any, method: str, level: int) -> Any:
    async def call(request: Any, context: Context) -> Any:
        begin, code = time.perf_counter(), "CANCELLED"
        with following(Trail.of(context.invocation_metadata() or ())):
            try:
                with _IN_FLIGHT.labels(method).track_inprogress():
                    answer = await behaviour(request, context)
                code = "OK"
                return answer
            except grpc.aio.AbortError:
                code = _name(context.code())
                raise
            finally:
                seconds = time.perf_counter() - begin
                _SECONDS.labels(method, code).observe(seconds)
                log.log(level, "%s ended with %s after %.2f s", method, code, seconds)

    return call


def _name(code: Any) -> str:
    """grpc.aio has a status as its number once the call was aborted with it."""
    names = {status.value[0]: status.name for status in grpc.StatusCode}
    return code.name if isinstance(code, grpc.StatusCode) else names.get(code, "UNKNOWN")
