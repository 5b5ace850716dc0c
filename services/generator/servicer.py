"""proto ⇄ calls, nothing else."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from dualprocess.v1 import generator_pb2 as pb
from dualprocess.v1 import generator_pb2_grpc
from services.common.device import DeviceThread
from services.common.errors import InvalidInput
from services.common.presets import GeneratorPreset
from services.common.torch_tensors import DTYPES_BY_NAME, WIRE_DTYPES
from services.generator import validate
from services.generator.blobs import Blobs
from services.generator.families.base import GeneratorFamily
from services.generator.generate import generate
from services.generator.optimize import optimize
from services.generator.teachers import teachers

if TYPE_CHECKING:
    import grpc

    Context = grpc.aio.ServicerContext[Any, Any]


class GeneratorServicer(generator_pb2_grpc.GeneratorServicer):
    def __init__(
        self, preset: GeneratorPreset, family: GeneratorFamily, device: DeviceThread
    ) -> None:
        self._preset = preset
        self._family = family
        self._device = device
        self._calls = itertools.count()

    async def Describe(
        self, request: pb.GeneratorDescribeRequest, context: Context
    ) -> pb.GeneratorDescribeResponse:
        return pb.GeneratorDescribeResponse(
            preset=self._preset.name,
            family=self._preset.family,
            model=self._preset.model,
            dtype=WIRE_DTYPES[DTYPES_BY_NAME[self._preset.dtype]],
            device=str(self._device.device),
            version=version("dualprocess"),
        )

    # grpc.aio streams from a coroutine that writes as well; the typed stubs know only generators.
    async def Optimize(  # type: ignore[override]
        self, request_iterator: AsyncIterator[pb.OptimizeRequest], context: Context
    ) -> None:
        first = await anext(request_iterator, None)
        if first is None or not first.HasField("spec"):
            raise InvalidInput("the first request must carry `spec`")
        spec = first.spec
        validate.optimize_spec(spec, self._preset)

        async def waiting(reason: str) -> None:
            await context.write(pb.OptimizeResponse(waiting=pb.Waiting(reason=reason)))

        stop = asyncio.Event()
        blobs = await _awaited({spec.lora.start_blob} - {""}, request_iterator, stop)
        listening = asyncio.create_task(_listen(request_iterator, stop))
        try:
            async with teachers(spec, waiting) as guide:
                await optimize(
                    self._family,
                    self._device,
                    spec,
                    guide,
                    context.write,
                    name=f"job{next(self._calls)}",
                    stop=stop,
                    start=blobs[spec.lora.start_blob] if spec.lora.start_blob else None,
                )
        finally:
            listening.cancel()

    async def Generate(  # type: ignore[override]
        self, request_iterator: AsyncIterator[pb.GenerateRequest], context: Context
    ) -> None:
        first = await anext(request_iterator, None)
        if first is None or not first.HasField("spec"):
            raise InvalidInput("the first request must carry `spec`")
        spec = first.spec
        validate.generate_spec(spec, self._preset)
        blobs = Blobs("loras")
        async for request in request_iterator:
            blobs.take(request.blob)
        files = [blobs[lora.blob] for lora in spec.loras]
        name = f"images{next(self._calls)}"
        async for seed, png in generate(self._family, self._device, spec, files, name=name):
            await context.write(pb.GenerateResponse(seed=seed, image=png))


async def _awaited(
    names: set[str], requests: AsyncIterator[pb.OptimizeRequest], stop: asyncio.Event
) -> Blobs:
    """The files that the spec names, once they are whole. A stop may come between them."""
    blobs = Blobs("lora.start_blob")
    while not all(name in blobs for name in names):
        request = await anext(requests, None)
        if request is None:
            break
        if request.HasField("stop"):
            stop.set()
        blobs.take(request.blob)
    return blobs


async def _listen(requests: AsyncIterator[pb.OptimizeRequest], stop: asyncio.Event) -> None:
    async for request in requests:
        if request.HasField("stop"):
            stop.set()
