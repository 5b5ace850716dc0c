"""The loop: noise → image → the VLM's gradient → LoRA, step after step.

It awaits the device and the VLM in turn, so while one job's image is at the VLM the device works
on another job's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import ParamSpec, TypeVar

import torch

from dualprocess.errors import TensorError
from dualprocess.v1 import generator_pb2 as pb
from dualprocess.v1 import tensor_pb2, vlm_pb2
from services.common import torch_tensors
from services.common.channels import CHUNK_BYTES
from services.common.device import DeviceThread
from services.common.errors import BadGradient
from services.generator.families.base import GeneratorFamily
from services.generator.guide import Guidance, Guide
from services.generator.sample import encode_png, side_by_side
from services.generator.training import Training

P = ParamSpec("P")
T = TypeVar("T")

Emit = Callable[[pb.OptimizeResponse], Awaitable[None]]


async def optimize(
    family: GeneratorFamily,
    device: DeviceThread,
    spec: pb.OptimizeSpec,
    guide: Guide,
    emit: Emit,
    *,
    name: str,
    stop: asyncio.Event,
    start: bytes | None = None,
) -> None:
    """Runs one job and tells ``emit`` of it: started, steps, previews, artifacts, finished.

    ``name`` is unique among the jobs on this generator, ``start`` is the file of the LoRA to begin
    with. When ``stop`` is set the job ends after the step in hand, with everything exported that a
    whole run exports. However the call ends, the job's LoRA leaves the denoiser.
    """
    async with device.opened(Training, family, spec, name, start=start) as training:
        started = pb.Started(
            trainable_parameters=training.trainable_parameters, steps=spec.optimizer.steps
        )
        await emit(pb.OptimizeResponse(started=started))
        steps_done = 0
        while steps_done < spec.optimizer.steps and not stop.is_set():
            step = await _step(device, training, guide, spec, steps_done)
            steps_done += 1
            await emit(pb.OptimizeResponse(step=step))
            if spec.eval.every and steps_done % spec.eval.every == 0:
                preview = await _preview(device, training, spec, steps_done)
                await emit(pb.OptimizeResponse(preview=preview))
        async for file_name, data in _results(device, training, spec):
            for chunk in _chunks(file_name, data):
                await emit(pb.OptimizeResponse(artifact=chunk))
        stopped = steps_done < spec.optimizer.steps
        await emit(
            pb.OptimizeResponse(finished=pb.Finished(steps_done=steps_done, stopped=stopped))
        )


async def _step(
    device: DeviceThread, training: Training, guide: Guide, spec: pb.OptimizeSpec, step: int
) -> pb.Step:
    begin = time.perf_counter()
    timings = pb.StepTimings()
    guidances = []
    for micro_step in range(spec.optimizer.accumulate):
        (images, message), seconds = await device.run(_timed, _forward, training, step, micro_step)
        timings.forward += seconds
        asked = time.perf_counter()
        guidance = await guide(message)
        timings.vlm += guidance.device_seconds
        timings.wire += time.perf_counter() - asked - guidance.device_seconds
        _, seconds = await device.run(_timed, _backward, training, images, guidance)
        timings.backward += seconds
        guidances.append(guidance)
    grad_norm, seconds = await device.run(_timed, training.update)
    timings.backward += seconds
    timings.total = time.perf_counter() - begin
    return pb.Step(
        step=step + 1,
        loss=_mean(guidance.loss for guidance in guidances),
        questions=_mean_answers([row for guidance in guidances for row in guidance.answers]),
        grad_norm=grad_norm,
        timings=timings,
    )


def _timed(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> tuple[T, float]:
    begin = time.perf_counter()
    return function(*args, **kwargs), time.perf_counter() - begin


def _forward(
    training: Training, step: int, micro_step: int
) -> tuple[torch.Tensor, tensor_pb2.Tensor]:
    images = training.forward(step, micro_step)
    return images, torch_tensors.to_proto(images)


def _backward(training: Training, images: torch.Tensor, guidance: Guidance) -> None:
    try:
        gradient = torch_tensors.from_proto(
            guidance.gradient, name="gradient", shape=tuple(images.shape)
        )
    except TensorError as error:
        raise BadGradient(f"the VLM's answer can't be used: {error}") from error
    training.backward(images, gradient)


async def _preview(
    device: DeviceThread, training: Training, spec: pb.OptimizeSpec, step: int
) -> pb.Preview:
    base = await device.run(training.render, spec.eval.seed, with_lora=False)
    lora = await device.run(training.render, spec.eval.seed, with_lora=True)
    png = await asyncio.to_thread(encode_png, side_by_side(base, lora))
    return pb.Preview(step=step, seed=spec.eval.seed, image=png)


async def _results(
    device: DeviceThread, training: Training, spec: pb.OptimizeSpec
) -> AsyncIterator[tuple[str, bytes]]:
    """The job's files: the LoRA, and each evaluation seed without and with it."""
    for name, file in (await device.run(training.export)).items():
        yield name, file
    for seed in range(spec.eval.seed, spec.eval.seed + spec.eval.images):
        for kind, with_lora in (("base", False), ("lora", True)):
            pixels = await device.run(training.render, seed, with_lora=with_lora)
            yield f"{kind}-{seed}.png", await asyncio.to_thread(encode_png, pixels)


def _chunks(name: str, data: bytes) -> Iterable[pb.BlobChunk]:
    for begin in range(0, len(data), CHUNK_BYTES):
        end = begin + CHUNK_BYTES
        yield pb.BlobChunk(name=name, data=data[begin:end], last=end >= len(data))


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed)


def _mean_answers(
    rows: Sequence[Sequence[vlm_pb2.AnswerResult]],
) -> list[vlm_pb2.AnswerResult]:
    """One entry for each question: its means over the rows."""
    return [
        vlm_pb2.AnswerResult(
            loss=_mean(answer.loss for answer in column),
            joint_probability=_mean(answer.joint_probability for answer in column),
            geometric_mean_probability=_mean(
                answer.geometric_mean_probability for answer in column
            ),
        )
        for column in zip(*rows, strict=True)
    ]
