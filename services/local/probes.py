"""Checks from outside whether a child is ready."""

from __future__ import annotations

import asyncio
import contextlib

import grpc
import httpx
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.common.channels import CHANNEL_OPTIONS


async def pings(port: int) -> bool:
    """Whether Redis answers on this port of loopback."""
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(1):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"PING\r\n")
            answer = await reader.readline()
            writer.close()
            await writer.wait_closed()
            return answer == b"+PONG\r\n"
    return False


async def serves(target: str) -> bool:
    """Whether the gRPC service at ``target`` is ready, by its health service."""
    async with grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS) as channel:
        try:
            answer = await health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=1
            )
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def answers(url: str) -> bool:
    """Whether ``url`` answers."""
    try:
        # No proxy, no certificates: this machine's own, whatever the environment says.
        async with httpx.AsyncClient(trust_env=False, verify=False) as client:  # noqa: S501
            return (await client.get(url, timeout=1)).is_success
    except httpx.HTTPError:
        return False
