"""Starts and stops the gRPC server of a GPU service: limits, credentials, health, reflection,
statuses, shutdown."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health as grpc_health
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from services.common.addresses import host_port
from services.common.blame import by_device, by_nobody
from services.common.calls import Calls
from services.common.channels import SERVER_OPTIONS
from services.common.credentials import Credentials, CredentialsError
from services.common.device_health import DeviceHealth
from services.common.errors import STATUS_OF, DeviceFault, InvalidInput, ServiceEnds, StartError
from services.common.exposure import grpc_exposure_fault
from services.common.settings import GpuServiceSettings
from services.common.token import TokenDoor

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

log = logging.getLogger(__name__)

#: Running calls have this long to end after SIGTERM; then they are ended.
DRAIN_SECONDS = 5.0
#: How long calls that were ended have to answer their callers.
_LAST_SECONDS = 1.0
#: The exit status of the process after a device fault.
DEVICE_FAILED = 70


@dataclass(frozen=True)
class Loaded:
    """A service with its model on a device. ``register`` adds it to a server. ``suspend`` asks
    running calls to end soon, so that other services can continue them."""

    register: Callable[[grpc.aio.Server], None]
    health: DeviceHealth
    suspend: Callable[[], None] = lambda: None


async def serve(
    service_name: str,
    settings: GpuServiceSettings,
    credentials: Credentials,
    load: Callable[[int], Awaitable[Loaded]],
) -> None:
    """Serves until SIGTERM or SIGINT; then running calls may end. If the device breaks, the process
    ends at once with status ``DEVICE_FAILED``.

    The port is bound first, so that a taken port is noticed before a model loads. Then ``load``
    makes the service. The server answers only after a self-test.

    Raises ``CredentialsError`` first, if the service would be open to everyone, and ``StartError``
    for an address that can't be used, or a device that fails its self-test.
    """
    if fault := grpc_exposure_fault(settings.host, credentials, insecure=settings.insecure):
        raise CredentialsError(fault)
    statuses = StatusInterceptor()
    server, bound = bind(host_port(settings.host, settings.port), credentials, statuses)
    try:
        loaded = await load(bound)
    except DeviceFault as error:
        raise StartError(
            f"the device is broken: {error}; look at its driver's log, or choose another --device"
        ) from error
    statuses.health = health = loaded.health
    await health.begin()
    loaded.register(server)
    told = grpc_health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(told, server)
    names = (service_name, grpc_health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    await server.start()
    for name in ("", service_name):
        await told.set(name, health_pb2.HealthCheckResponse.SERVING)
    log.info("%s is ready on %s", service_name, host_port(settings.host, bound))
    await _stop_signal_or(health.sick)
    calls = statuses.calls
    if health.sick.is_set():
        calls.end(health.fault)
        await told.enter_graceful_shutdown()
    else:
        log.info("stopping: running calls have %.0f s to end", DRAIN_SECONDS)
        calls.close("the service stops")
        await told.enter_graceful_shutdown()
        loaded.suspend()
        await calls.over(DRAIN_SECONDS)
        calls.end("the service stops")
    await calls.over(_LAST_SECONDS)
    await server.stop(_LAST_SECONDS)
    if health.sick.is_set():
        log.critical("%s; this process ends", health.fault)
        logging.shutdown()
        # On a broken device its thread and its driver may never end.
        os._exit(DEVICE_FAILED)


def bind(
    address: str, credentials: Credentials, statuses: StatusInterceptor | None = None
) -> tuple[grpc.aio.Server, int]:
    """A server that is still to start, with its limits, statuses and doors; and its port.

    Raises ``StartError`` for an address that it can't have.
    """
    doors = [] if credentials.token is None else [TokenDoor(credentials.token)]
    server = grpc.aio.server(
        options=SERVER_OPTIONS, interceptors=[*doors, statuses or StatusInterceptor()]
    )
    shown = credentials.of_server()
    try:
        if shown is None:
            return server, server.add_insecure_port(address)
        return server, server.add_secure_port(address, shown)
    except RuntimeError as error:
        raise StartError(
            f"can't listen on {address}: it is in use, or is not an address of this machine; "
            "choose another --port or --host"
        ) from error


async def _stop_signal_or(sick: asyncio.Event) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    waits = [asyncio.ensure_future(event.wait()) for event in (stop, sick)]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()


#: This method does not use the device, so its answer says nothing about the device.
_DESCRIBE = "/Describe"


class StatusInterceptor(grpc.aio.ServerInterceptor):
    """Turns every exception of a servicer into a status with a sentence.

    The errors of ``services.common.errors`` have statuses of their own. Any other error is a fault
    of the service or of the device: its status is ``INTERNAL``, its traceback is logged, ``health``
    is told, and the answer names the device. Methods are coroutines; a streaming one sends with
    ``context.write``. ``calls`` are the running calls.
    """

    def __init__(self) -> None:
        self.calls = Calls()
        self.health: DeviceHealth | None = None

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        method = handler_call_details.method
        handler = await continuation(handler_call_details)
        # Health and reflection have handlers of other kinds, and statuses of their own.
        if handler is None or method.startswith("/grpc."):
            return handler
        read = _reader(handler.request_deserializer)
        asks_device = not method.endswith(_DESCRIBE)
        if handler.request_streaming:
            return grpc.stream_stream_rpc_method_handler(
                self._with_statuses(handler.stream_stream, lambda requests: requests, asks_device),
                read,
                handler.response_serializer,
            )
        # A unary call that gRPC can't parse becomes a status before it gets here.
        return grpc.unary_unary_rpc_method_handler(
            self._with_statuses(handler.unary_unary, read, asks_device),
            None,
            handler.response_serializer,
        )

    def _with_statuses(self, behaviour: Any, read: Callable[[Any], Any], asks_device: bool) -> Any:
        async def call(request: Any, context: Context) -> Any:
            try:
                with self.calls.taken():
                    answer = await behaviour(read(request), context)
                if asks_device and self.health is not None:
                    self.health.answered()
                return answer
            except grpc.aio.AbortError:
                raise
            except Exception as error:
                status = await self._status(error)
            # Outside of the except block, since gRPC keeps the exception of ``abort`` until the
            # next call: if that referred to the error, the error's frames would keep their tensors
            # on the device.
            return await context.abort(*status)

        return call

    async def _status(
        self, error: Exception
    ) -> tuple[grpc.StatusCode, str, tuple[tuple[str, str], ...]]:
        code = next((STATUS_OF[kind] for kind in type(error).__mro__ if kind in STATUS_OF), None)
        if code is not None:
            return code, str(error), by_nobody() if isinstance(error, ServiceEnds) else ()
        log.error("a call failed", exc_info=error)
        if self.health is None:
            return grpc.StatusCode.INTERNAL, _told(error), ()
        if self.health.sick.is_set():
            # The device broke during another call.
            return grpc.StatusCode.UNAVAILABLE, self.health.fault, by_nobody()
        await self.health.failed(error)
        return grpc.StatusCode.INTERNAL, _told(error), by_device(self.health.name)


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _reader(deserialize: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def read(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError as error:
            raise InvalidInput(f"the request can't be read: {error}") from error

    return read
