"""gRPC bootstrap of a GPU service: limits, health, reflection, statuses, drain."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from services.common.channels import LIMITS
from services.common.errors import STATUS_OF

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

log = logging.getLogger(__name__)

#: Calls in flight get this long to end after SIGTERM.
DRAIN_SECONDS = 5.0


async def serve(
    service_name: str,
    host: str,
    port: int,
    load: Callable[[], Awaitable[Callable[[grpc.aio.Server], None]]],
) -> None:
    """Serves until SIGTERM or SIGINT, then lets calls in flight end.

    The port is bound first, so that a taken one is known before a model loads; ``load`` then
    makes the servicer and returns what registers it; only then does the server answer.
    """
    server = grpc.aio.server(options=LIMITS, interceptors=[StatusInterceptor()])
    bound = server.add_insecure_port(f"{host}:{port}")
    register = await load()
    register(server)
    health_servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    names = (service_name, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    await server.start()
    for name in ("", service_name):
        await health_servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
    log.info("%s is ready on %s:%d", service_name, host, bound)
    await _stop_signal()
    log.info("stopping: calls in flight have %.0f s", DRAIN_SECONDS)
    await health_servicer.enter_graceful_shutdown()
    await server.stop(DRAIN_SECONDS)


async def _stop_signal() -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()


class StatusInterceptor(grpc.aio.ServerInterceptor):
    """Turns every exception of a servicer into a status with a sentence.

    The kinds of ``services.common.errors`` have statuses of their own; anything else is our
    mistake: ``INTERNAL``, its traceback in the log. Methods are coroutines; a streaming one
    sends with ``context.write``.
    """

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        # Health and reflection bring handlers of other kinds, and statuses of their own.
        if handler is None or handler_call_details.method.startswith("/grpc."):
            return handler
        make = (
            grpc.stream_stream_rpc_method_handler
            if handler.request_streaming
            else grpc.unary_unary_rpc_method_handler
        )
        behaviour = handler.stream_stream or handler.unary_unary
        return make(
            _with_statuses(behaviour), handler.request_deserializer, handler.response_serializer
        )


def _with_statuses(behaviour: Any) -> Any:
    async def call(request: Any, context: Context) -> Any:
        async with _statuses(context):
            return await behaviour(request, context)

    return call


@contextlib.asynccontextmanager
async def _statuses(context: Context) -> AsyncIterator[None]:
    try:
        yield
    except (grpc.aio.AbortError, asyncio.CancelledError):
        raise
    except tuple(STATUS_OF) as error:
        code = next(STATUS_OF[kind] for kind in type(error).__mro__ if kind in STATUS_OF)
        await context.abort(code, str(error))
    except Exception as error:
        log.exception("a call failed")
        await context.abort(grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}")
