"""gRPC bootstrap of a GPU service: limits, doors, health, reflection, statuses, drain."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from services.common import tracing
from services.common.addresses import host_port
from services.common.channels import SERVER_OPTIONS
from services.common.credentials import Credentials, CredentialsError
from services.common.errors import STATUS_OF, InvalidInput, StartError
from services.common.exposure import grpc_exposure_fault
from services.common.settings import GpuServiceSettings
from services.common.token import TokenDoor
from services.common.watched_calls import WatchedCalls

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

log = logging.getLogger(__name__)

#: Calls in flight get this long to end after SIGTERM.
DRAIN_SECONDS = 5.0


async def serve(
    service_name: str,
    settings: GpuServiceSettings,
    credentials: Credentials,
    load: Callable[[], Awaitable[Callable[[grpc.aio.Server], None]]],
) -> None:
    """Serves until SIGTERM or SIGINT, then lets calls in flight end.

    The port is bound first, so that a taken one is known before a model loads; ``load`` then
    makes the servicer and returns what registers it; only then does the server answer.

    Raises ``CredentialsError`` before anything else where everyone could come in unasked, and
    ``StartError`` for an address that it can't have.
    """
    if fault := grpc_exposure_fault(settings.host, credentials, insecure=settings.insecure):
        raise CredentialsError(fault)
    server, bound = bind(host_port(settings.host, settings.port), credentials)
    register = await load()
    register(server)
    health_servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    names = (service_name, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    await server.start()
    for name in ("", service_name):
        await health_servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
    log.info("%s is ready on %s", service_name, host_port(settings.host, bound))
    await _stop_signal()
    log.info("stopping: calls in flight have %.0f s", DRAIN_SECONDS)
    await health_servicer.enter_graceful_shutdown()
    await server.stop(DRAIN_SECONDS)


def bind(address: str, credentials: Credentials) -> tuple[grpc.aio.Server, int]:
    """A server that is still to start, with its limits, statuses and doors; and its port.

    Raises ``StartError`` for an address that it can't have.
    """
    doors = [] if credentials.token is None else [TokenDoor(credentials.token)]
    traces = tracing.server_interceptors()
    interceptors = [*doors, *traces, WatchedCalls(), StatusInterceptor()]
    server = grpc.aio.server(options=SERVER_OPTIONS, interceptors=interceptors)
    shown = credentials.of_server()
    try:
        if shown is None:
            return server, server.add_insecure_port(address)
        return server, server.add_secure_port(address, shown)
    except RuntimeError as error:
        raise StartError(
            f"can't listen on {address}: it is taken, or not this machine's; "
            "choose another --port or --host"
        ) from error


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
        read = _reader(handler.request_deserializer)
        if handler.request_streaming:
            return grpc.stream_stream_rpc_method_handler(
                _with_statuses(handler.stream_stream, lambda requests: requests),
                read,
                handler.response_serializer,
            )
        # What gRPC itself can't read of a unary call becomes a status before it gets here.
        return grpc.unary_unary_rpc_method_handler(
            _with_statuses(handler.unary_unary, read), None, handler.response_serializer
        )


def _reader(deserialize: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def read(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError as error:
            raise InvalidInput(f"the request can't be read: {error}") from error

    return read


def _with_statuses(behaviour: Any, read: Callable[[Any], Any]) -> Any:
    async def call(request: Any, context: Context) -> Any:
        try:
            return await behaviour(read(request), context)
        except grpc.aio.AbortError:
            raise
        except Exception as error:
            status = _status(error)
        # Out here, since gRPC keeps what ``abort`` raises until the next call: if that knew of the
        # error, the error's frames would keep their tensors on the device.
        return await context.abort(*status)

    return call


def _status(error: Exception) -> tuple[grpc.StatusCode, str]:
    code = next((STATUS_OF[kind] for kind in type(error).__mro__ if kind in STATUS_OF), None)
    if code is not None:
        return code, str(error)
    log.error("a call failed", exc_info=error)
    return grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}"
