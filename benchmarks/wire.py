"""What a Guide call costs without a model: images there, their gradient back.

The call goes through the project's own client and servicer to a second process, where the model is
left out. Beside it runs a bare gRPC call that sends the same bytes there and back. Cost is the CPU
time of both processes, which other work on the machine hardly changes. Two pairs of processes take
turns: one as the services run, one with glibc's own thresholds for freed memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from multiprocessing.connection import Connection
from typing import Any

import grpc
import torch
from rich.table import Table

from benchmarks.serving import serve
from dualprocess import tensors
from dualprocess.v1 import vlm_pb2, vlm_pb2_grpc
from services.common import torch_tensors
from services.common.channels import open_channel
from services.common.credentials import OPEN
from services.common.device import DeviceThread
from services.common.freed_memory import keep_freed_memory
from services.common.presets import load_presets
from services.common.replicas import Replicas
from services.generator.guide import VlmGuide, gradient_of
from services.local.ports import free_port
from services.vlm import servicer
from services.vlm.answers import Answer
from services.vlm.guide import Guidance

#: The sides of the images, in bfloat16.
SIDES = (512, 1024)
CALLS, WARM_UP, ROUNDS = 20, 4, 5
PRESET = "tiny-idefics2"
QUESTION = vlm_pb2.Question(question="Is the man smiling?", answer="Yes")

_SPAWN = multiprocessing.get_context("spawn")

Costs = dict[str, float]


def measure() -> dict[str, Any]:
    return {
        "calls": CALLS * ROUNDS,
        # Processes of their own for each size: glibc's thresholds rise with what was freed once.
        "sides": {str(side): _summary(_rounds(side)) for side in SIDES},
        "finite_to_torch": _finite_to_torch(),
    }


def _rounds(side: int) -> dict[bool, list[Costs]]:
    """The costs with and without memory kept, round by round in turn."""
    rounds: dict[bool, list[Costs]] = {True: [], False: []}
    with contextlib.ExitStack() as pairs:
        pipes = {kept: pairs.enter_context(_pair(side, kept=kept)) for kept in rounds}
        for _ in range(ROUNDS):
            for kept, pipe in pipes.items():
                pipe.send(CALLS)
                rounds[kept].append(pipe.recv())
    return rounds


@contextlib.contextmanager
def _pair(side: int, *, kept: bool) -> Iterator[Connection]:
    pipe, end = _SPAWN.Pipe()
    client = _SPAWN.Process(target=_client, args=(side, kept, end))
    client.start()
    # So that a client that failed is noticed here.
    end.close()
    try:
        yield pipe
    finally:
        with contextlib.suppress(BrokenPipeError):
            pipe.send(0)
        client.join()


def _summary(rounds: Mapping[bool, list[Costs]]) -> dict[str, float]:
    def median(name: str, *, kept: bool = True) -> float:
        return statistics.median(costs[name] for costs in rounds[kept])

    guide = median("guide_cpu")
    return {
        "guide_ms": round(1000 * median("guide"), 2),
        "guide_cpu_ms": round(1000 * guide, 2),
        "to_bare_call": round(guide / median("bare_cpu"), 2),
        "to_glibc_defaults": round(guide / median("guide_cpu", kept=False), 2),
    }


def _finite_to_torch() -> float:
    """The cost of the test for NaN and infinity by that of torch's, for an image of 512²."""
    message = torch_tensors.to_proto(torch.randn(1, 3, 512, 512).to(torch.bfloat16))
    array = tensors.from_proto(message, name="images")
    image = torch_tensors.from_proto(message, name="images")
    torch.set_num_threads(1)

    def cost(function: Callable[[], object]) -> float:
        begin = time.process_time()
        for _ in range(CALLS):
            function()
        return time.process_time() - begin

    ratios = [
        cost(lambda: tensors.is_finite(array, message.dtype))
        / cost(lambda: torch.isfinite(image).all())
        for _ in range(ROUNDS)
    ]
    return round(statistics.median(ratios), 3)


def _client(side: int, kept: bool, pipe: Connection) -> None:
    """Measures so many calls as ``pipe`` says, until it says 0."""
    if kept:
        keep_freed_memory()
    torch.set_num_threads(1)
    port = free_port()
    server = _SPAWN.Process(target=_server, args=(kept, port), daemon=True)
    server.start()
    try:
        asyncio.run(_measured(f"127.0.0.1:{port}", side, pipe))
    finally:
        server.terminate()
        server.join()


async def _measured(target: str, side: int, pipe: Connection) -> None:
    async def never(reason: str) -> None:
        raise RuntimeError(reason)

    async with open_channel(target) as channel, Replicas(target, OPEN, preset=PRESET) as replicas:
        async with asyncio.timeout(120):
            await channel.channel_ready()
        guard = vlm_pb2.GuideGuard()
        guide = VlmGuide(replicas, [QUESTION], "", guard, waiting=never, warn=never)
        bare: Any = channel.unary_unary(_BARE)
        server_cpu: Any = channel.unary_unary(_CPU)

        async def cpu() -> float:
            return time.process_time() + float(await server_cpu(b""))

        while calls := await asyncio.to_thread(pipe.recv):
            pipe.send(await _costs(side, calls, guide, bare, cpu))


async def _costs(
    side: int,
    calls: int,
    guide: VlmGuide,
    bare: Callable[[bytes], Awaitable[bytes]],
    cpu: Callable[[], Awaitable[float]],
) -> Costs:
    images = torch.randn(1, 3, side, side).to(torch.bfloat16)
    data = torch_tensors.to_proto(images).data

    async def guided() -> None:
        gradient_of(await guide(torch_tensors.to_proto(images)), images.shape)

    async def echoed() -> None:
        await bare(data)

    costs = {}
    for name, call in (("guide", guided), ("bare", echoed)):
        for _ in range(WARM_UP):
            await call()
        before, seconds = await cpu(), []
        for _ in range(calls):
            begin = time.perf_counter()
            await call()
            seconds.append(time.perf_counter() - begin)
        costs[name] = statistics.median(seconds)
        costs[f"{name}_cpu"] = (await cpu() - before) / calls
    return costs


_BARE, _CPU = "/grpc.bench.Bare/Echo", "/grpc.bench.Bare/Cpu"


def _server(kept: bool, port: int) -> None:
    if kept:
        keep_freed_memory()
    # The model's part of the call: the gradient is the image.
    setattr(servicer, "guide_together", _no_model)  # noqa: B010
    asyncio.run(_serve(port))


def _no_model(
    _vlm: object, calls: list[torch.Tensor], questions: list[object], *_rest: object
) -> list[Guidance]:
    answers = [Answer(1.0, 0.5, 0.5, "Yes")] * len(questions)
    return [Guidance(1.0, [answers] * len(images), images) for images in calls]


async def _serve(port: int) -> None:
    serves: Any = servicer.VlmServicer(
        load_presets().vlm(PRESET),
        None,  # type: ignore[arg-type]
        DeviceThread("cpu"),
    )

    async def echo(data: bytes, _context: object) -> bytes:
        return data

    async def cpu(_data: bytes, _context: object) -> bytes:
        return str(time.process_time()).encode()

    def register(server: grpc.aio.Server) -> None:
        vlm_pb2_grpc.add_VlmServicer_to_server(serves, server)
        handlers: dict[str, Any] = {
            method.rpartition("/")[2]: grpc.unary_unary_rpc_method_handler(behaviour)
            for method, behaviour in ((_BARE, echo), (_CPU, cpu))
        }
        service = _BARE.split("/")[1]
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, handlers)])

    await serve(port, register)


def tables(result: Mapping[str, Any]) -> Iterator[Table]:
    title = (
        f"a Guide call without a model; CPU time of both processes, median of {result['calls']}; "
        f"the test for NaN costs {result['finite_to_torch']} of torch's"
    )
    shown = Table(
        "image, bfloat16", "ms", "CPU ms", "/ bare gRPC call", "/ glibc's defaults", title=title
    )
    for side, of in result["sides"].items():
        shown.add_row(
            f"{side}²",
            f"{of['guide_ms']:.2f}",
            f"{of['guide_cpu_ms']:.2f}",
            f"{of['to_bare_call']:.2f}",
            f"{of['to_glibc_defaults']:.2f}",
        )
    yield shown
