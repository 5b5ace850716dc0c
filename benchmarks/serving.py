"""A gRPC server of the benches' own: as the services' are, health included, without a model."""

from __future__ import annotations

from collections.abc import Callable

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from services.common.credentials import OPEN
from services.common.server import bind


async def serve(port: int, register: Callable[[grpc.aio.Server], None]) -> None:
    """Serves what ``register`` adds until the process ends."""
    server, _ = bind(f"127.0.0.1:{port}", OPEN)
    register(server)
    told = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(told, server)
    await server.start()
    await told.set("", health_pb2.HealthCheckResponse.SERVING)
    await server.wait_for_termination()
