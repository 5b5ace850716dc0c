"""The API, and the generators and VLMs behind gRPC."""

from __future__ import annotations

import grpc
import httpx
from grpc_health.v1 import health_pb2, health_pb2_grpc

from dualprocess.v1 import generator_pb2, generator_pb2_grpc, vlm_pb2, vlm_pb2_grpc
from services.common.channels import open_channel
from services.common.credentials import Credentials
from services.orchestrator.doctor.finding import Finding, fine, problem, warning

_SECONDS = 5.0
_LIST = ("ipv4:", "ipv6:")


async def of_api(url: str) -> list[Finding]:
    address = f"{url.rstrip('/')}/readyz"
    try:
        async with httpx.AsyncClient(timeout=_SECONDS) as client:
            answer = await client.get(address)
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        said = f"{address} does not answer ({type(error).__name__}: {error})"
        return [problem("api", said, "start it, or give another --url")]
    if not answer.is_success:
        said = f"{address} answers {answer.status_code}: {answer.text[:200]}"
        return [problem("api", said, "see its log")]
    first, *findings = answer.text.splitlines() or [""]
    if first != "ok":
        return [
            problem("api", f"{address} is not dualprocess", "give the service's address as --url")
        ]
    return [
        fine("api", f"{address} answers ok"),
        *(warning("api", said, "as it says") for said in findings),
    ]


async def of_services(target: str, credentials: Credentials) -> list[Finding]:
    """Asks each address of a list on its own, so that one that is away is found."""
    scheme = next((scheme for scheme in _LIST if target.startswith(scheme)), "")
    addresses = [f"{scheme}{one}" for one in target.removeprefix(scheme).split(",")]
    return [await _of_service(address, credentials) for address in addresses]


async def _of_service(target: str, credentials: Credentials) -> Finding:
    """Asks by gRPC's health protocol, which needs no token; then by a call that needs the token or
    certificate."""
    async with open_channel(target, credentials) as channel:
        try:
            answer = await health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=_SECONDS, wait_for_ready=False
            )
            if answer.status != health_pb2.HealthCheckResponse.SERVING:
                said = f"{target} is not serving"
                return problem("endpoint", said, "wait until its model is loaded")
            preset = await _preset(channel)
        except grpc.aio.AioRpcError as error:
            return problem(
                "endpoint", f"{target}: {error.code().name}: {error.details()}", _remedy(error)
            )
    return fine("endpoint", f"{target} serves {preset}")


async def _preset(channel: grpc.aio.Channel) -> str:
    """The preset of the generator or VLM there."""
    try:
        generator = generator_pb2_grpc.GeneratorStub(channel)
        request = generator_pb2.GeneratorDescribeRequest()
        return (await generator.Describe(request, timeout=_SECONDS)).preset
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
            raise
    vlm = vlm_pb2_grpc.VlmStub(channel)
    return (await vlm.Describe(vlm_pb2.VlmDescribeRequest(), timeout=_SECONDS)).preset


def _remedy(error: grpc.aio.AioRpcError) -> str:
    if error.code() is grpc.StatusCode.UNAUTHENTICATED:
        return "give this process the same DUALPROCESS_GRPC_TOKEN as the service"
    if error.code() is grpc.StatusCode.UNIMPLEMENTED:
        return "this is neither a generator nor a VLM of dualprocess; give the address of one"
    details = error.details() or ""
    if any(word in details.lower() for word in ("ssl", "tls", "certificate", "handshake")):
        return (
            "both ends need TLS, and certificates of one authority with the right names: --tls-ca"
        )
    return "start it, or correct its address; a service with TLS hangs up on a caller without"
