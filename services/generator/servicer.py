"""Turns gRPC messages into calls of the service, and results into messages."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Iterator
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from dualprocess.v1 import generator_pb2 as pb
from dualprocess.v1 import generator_pb2_grpc
from services.common.credentials import OPEN, Credentials
from services.common.device import DeviceThread
from services.common.errors import InvalidInput
from services.common.presets import GeneratorPreset
from services.common.torch_tensors import DTYPES_BY_NAME, WIRE_DTYPES
from services.generator import validate
from services.generator.blobs import Blobs
from services.generator.families.base import GeneratorFamily
from services.generator.generate import generate
from services.generator.guide import Guide
from services.generator.interrupts import Interrupts
from services.generator.optimize import Emit, optimize
from services.generator.teachers import teachers

if TYPE_CHECKING:
    import grpc

    Context = grpc.aio.ServicerContext[Any, Any]


#: Limit for all LoRAs of one Generate call together.
MAX_LORA_BYTES = 2 * 1024**3
#: The largest checkpoint has rank 256 on every layer of FLUX.
MAX_CHECKPOINT_BYTES = 16 * 1024**3


class GeneratorServicer(generator_pb2_grpc.GeneratorServicer):
    """``credentials`` are used to call its VLMs; ``device_id`` is the device's name."""

    def __init__(
        self,
        preset: GeneratorPreset,
        family: GeneratorFamily,
        device: DeviceThread,
        credentials: Credentials = OPEN,
        device_id: str = "",
    ) -> None:
        self._preset = preset
        self._family = family
        self._device = device
        self._credentials = credentials
        self._device_id = device_id
        self._calls = itertools.count()
        self._interrupts: set[Interrupts] = set()
        self._suspending = False

    def suspend(self) -> None:
        """Hands back each running job with a checkpoint, as if its client had asked for that."""
        self._suspending = True
        for interrupts in self._interrupts:
            interrupts.suspend.set()

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
            device_id=self._device_id,
            memory=self._family.memory,
            quantized=self._preset.quantize or "",
        )

    # grpc.aio also accepts a coroutine that writes to the stream; the typed stubs have only
    # generators.
    async def Optimize(  # type: ignore[override]
        self, request_iterator: AsyncIterator[pb.OptimizeRequest], context: Context
    ) -> None:
        first = await anext(request_iterator, None)
        if first is None or not first.HasField("spec"):
            raise InvalidInput("the first request must carry `spec`")
        spec = first.spec
        validate.optimize_spec(spec, self._preset)

        writing = asyncio.Lock()

        async def emit(response: pb.OptimizeResponse) -> None:
            async with writing:
                await context.write(response)

        async def waiting(reason: str) -> None:
            await emit(pb.OptimizeResponse(waiting=pb.Waiting(reason=reason)))

        async def warn(sentence: str) -> None:
            await emit(pb.OptimizeResponse(warnings=pb.Warnings(sentences=[sentence])))

        teaching = teachers(spec, waiting, warn, self._credentials)
        with self._interruptible() as interrupts:
            await self._optimize(spec, request_iterator, emit, teaching, interrupts)

    @contextlib.contextmanager
    def _interruptible(self) -> Iterator[Interrupts]:
        interrupts = Interrupts()
        if self._suspending:
            interrupts.suspend.set()
        self._interrupts.add(interrupts)
        try:
            yield interrupts
        finally:
            self._interrupts.discard(interrupts)

    async def _optimize(
        self,
        spec: pb.OptimizeSpec,
        requests: AsyncIterator[pb.OptimizeRequest],
        emit: Emit,
        teaching: contextlib.AbstractAsyncContextManager[Guide],
        interrupts: Interrupts,
    ) -> None:
        files = await _named_files(spec, requests, interrupts)
        listening = asyncio.create_task(_listen(requests, interrupts))
        try:
            async with teaching as guide:
                await optimize(
                    self._family,
                    self._device,
                    spec,
                    guide,
                    emit,
                    name=f"job{next(self._calls)}",
                    interrupts=interrupts,
                    **files,
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
        blobs = Blobs(MAX_LORA_BYTES)
        async for request in request_iterator:
            blobs.take(request.blob)
        files = [blobs.whole(lora.blob, field="loras") for lora in spec.loras]
        name = f"images{next(self._calls)}"
        async for response in generate(self._family, self._device, spec, files, name=name):
            await context.write(response)


async def _named_files(
    spec: pb.OptimizeSpec, requests: AsyncIterator[pb.OptimizeRequest], interrupts: Interrupts
) -> dict[str, bytes]:
    """The files that the spec names, once they are complete: ``start``, ``resume``."""
    named = {
        "start": ("lora.start_blob", spec.lora.start_blob),
        "resume": ("resume.blob", spec.resume.blob),
    }
    named = {role: (field, blob) for role, (field, blob) in named.items() if blob}
    blobs = Blobs(MAX_CHECKPOINT_BYTES)
    while not all(blob in blobs for _, blob in named.values()):
        request = await anext(requests, None)
        if request is None:
            break
        _note(request, interrupts)
        blobs.take(request.blob)
    return {role: blobs.whole(blob, field=field) for role, (field, blob) in named.items()}


async def _listen(requests: AsyncIterator[pb.OptimizeRequest], interrupts: Interrupts) -> None:
    async for request in requests:
        _note(request, interrupts)


def _note(request: pb.OptimizeRequest, interrupts: Interrupts) -> None:
    if request.HasField("stop"):
        (interrupts.suspend if request.stop.suspend else interrupts.stop).set()
