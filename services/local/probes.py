"""Checks from outside whether a child is ready."""

from __future__ import annotations

import grpc
import httpx
from grpc_health.v1 import health_pb2, health_pb2_grpc
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from services.common.channels import CHANNEL_OPTIONS


async def lets_in(url: str) -> bool:
    """Whether Redis answers at ``url``, and accepts the password in it."""
    client = Redis.from_url(
        url, socket_connect_timeout=1, socket_timeout=1, retry=Retry(NoBackoff(), 0)
    )
    try:
        return bool(await client.ping())
    except RedisError:
        return False
    finally:
        await client.aclose()


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
