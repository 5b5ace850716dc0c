"""The service over real gRPC, and a scripted VLM at the other end."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc

from dualprocess.v1 import generator_pb2 as pb
from dualprocess.v1 import vlm_pb2, vlm_pb2_grpc
from services.common.channels import LIMITS
from services.common.server import StatusInterceptor
from tests.generator.bright import judge


class ScriptedVlm(vlm_pb2_grpc.VlmServicer):
    """Answers as ``bright`` does; ``refuse`` is a status it gives instead."""

    def __init__(self) -> None:
        self.refuse: grpc.StatusCode | None = None
        self.never_answers = False
        self.requests: list[vlm_pb2.GuideRequest] = []

    async def Guide(self, request: vlm_pb2.GuideRequest, context: Any) -> vlm_pb2.GuideResponse:
        self.requests.append(request)
        if self.never_answers:
            await asyncio.Event().wait()
        if self.refuse is not None:
            await context.abort(self.refuse, "questions.0: not a question")
        guidance = judge(request.images)
        return vlm_pb2.GuideResponse(
            loss=guidance.loss,
            images=[vlm_pb2.ImageAnswers(answers=row) for row in guidance.answers],
            gradient=guidance.gradient,
        )


@contextlib.asynccontextmanager
async def served(add: Callable[[grpc.aio.Server], None], port: int = 0) -> AsyncIterator[int]:
    server = grpc.aio.server(options=LIMITS, interceptors=[StatusInterceptor()])
    add(server)
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield bound
    finally:
        await server.stop(None)


def vlm_served(vlm: ScriptedVlm, port: int = 0) -> Any:
    return served(lambda server: vlm_pb2_grpc.add_VlmServicer_to_server(vlm, server), port)


async def whole(responses: Any) -> tuple[list[pb.OptimizeResponse], dict[str, bytes]]:
    told: list[pb.OptimizeResponse] = []
    files: defaultdict[str, bytes] = defaultdict(bytes)
    async for response in responses:
        told.append(response)
        if response.HasField("artifact"):
            files[response.artifact.name] += response.artifact.data
    return told, files


def requests(spec: pb.OptimizeSpec) -> list[pb.OptimizeRequest]:
    return [pb.OptimizeRequest(spec=spec)]
