"""``python -m services.common.healthy HOST:PORT [NAME]``: the health check of a container that runs
a generator or VLM, by gRPC's health protocol.

With TLS, ``NAME`` is the name in its certificate. Ends with 0, or with 1 and a sentence.
"""

from __future__ import annotations

import asyncio
import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from dualprocess import printable
from services.common.channels import open_channel
from services.common.credentials import CredentialsError
from services.common.settings import GrpcSettings

_SECONDS = 5.0
_BAD_INPUT = 2


async def fault(target: str, name: str | None, settings: GrpcSettings) -> str | None:
    """Why it does not serve; ``None`` if it does."""
    try:
        credentials = settings.credentials()
    except CredentialsError as error:
        return str(error)
    async with open_channel(target, credentials, peer=name) as channel:
        try:
            answer = await health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=_SECONDS
            )
        except grpc.aio.AioRpcError as error:
            return f"{target}: {error.code().name}: {error.details()}"
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        return f"{target} is not serving"
    return None


def main(arguments: list[str]) -> None:
    if len(arguments) not in (1, 2):
        print("HOST:PORT: give the address of the service, and with TLS its NAME", file=sys.stderr)
        sys.exit(_BAD_INPUT)
    target, name = arguments[0], arguments[1] if len(arguments) > 1 else None
    if said := asyncio.run(fault(target, name, GrpcSettings.from_environment())):
        sys.exit(printable.lines(said))


if __name__ == "__main__":
    main(sys.argv[1:])
