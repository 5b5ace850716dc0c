"""One optimiser step: noise → image → the VLM's gradient → LoRA."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from typing import ParamSpec, TypeVar

import torch

from dualprocess.v1 import generator_pb2 as pb
from dualprocess.v1 import tensor_pb2, vlm_pb2
from services.common import torch_tensors
from services.common.device import DeviceThread
from services.common.errors import NonFinite
from services.generator.guide import Guidance, Guide, gradient_of
from services.generator.training import Made, Training

P = ParamSpec("P")
T = TypeVar("T")


async def run_step(
    device: DeviceThread, training: Training, guide: Guide, spec: pb.OptimizeSpec, step: int
) -> pb.Step:
    """What the step did. ``step`` counts from 0.

    Raises ``NonFinite``: then it changed nothing.
    """
    try:
        return await _run_step(device, training, guide, spec, step)
    except NonFinite:
        await device.run(training.skip)
        raise


async def _run_step(
    device: DeviceThread, training: Training, guide: Guide, spec: pb.OptimizeSpec, step: int
) -> pb.Step:
    begin = time.perf_counter()
    timings = pb.StepTimings()
    guidances = []
    for micro_step in range(spec.optimizer.accumulate):
        (made, message), seconds = await device.run(_timed, _forward, training, step, micro_step)
        timings.forward += seconds
        guidance, waited, anchor = await _judged(device, training, guide, made, message)
        timings.vlm += guidance.device_seconds
        timings.wire += waited - guidance.device_seconds
        _, seconds = await device.run(_timed, _backward, training, spec, made, guidance, anchor)
        timings.backward += seconds
        guidances.append(guidance)
    learned, seconds = await device.run(_timed, training.update)
    timings.backward += seconds
    timings.total = time.perf_counter() - begin
    return pb.Step(
        step=step + 1,
        loss=_mean(guidance.loss for guidance in guidances),
        questions=_mean_answers([row for guidance in guidances for row in guidance.answers]),
        grad_norm=learned.grad_norm,
        timings=timings,
        collateral=learned.collateral,
    )


async def _judged(
    device: DeviceThread, training: Training, guide: Guide, made: Made, message: tensor_pb2.Tensor
) -> tuple[Guidance, float, torch.Tensor | None]:
    """The VLM's answer, and how many seconds it took; meanwhile the base model makes its
    prediction, for the anchor."""

    async def asked() -> tuple[Guidance, float]:
        begin = time.perf_counter()
        return await guide(message), time.perf_counter() - begin

    answer = asyncio.ensure_future(asked())
    try:
        # The request must be sent before the device is busy again.
        await asyncio.sleep(0)
        anchor = await device.run(training.compare, made)
        return *(await answer), anchor
    finally:
        answer.cancel()
        # A frame that holds what it fails with is a cycle, and keeps the step's graph.
        del answer


def _timed(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> tuple[T, float]:
    begin = time.perf_counter()
    return function(*args, **kwargs), time.perf_counter() - begin


def _forward(training: Training, step: int, micro_step: int) -> tuple[Made, tensor_pb2.Tensor]:
    """Raises ``NonFinite`` for images that are not."""
    made = training.forward(step, micro_step)
    # Waits for the images, and so for everything before them.
    message = torch_tensors.to_proto(made.images)
    if not torch_tensors.is_finite(message):
        raise NonFinite("the generator's image is not finite")
    return made, message


def _backward(
    training: Training,
    spec: pb.OptimizeSpec,
    made: Made,
    guidance: Guidance,
    anchor: torch.Tensor | None,
) -> None:
    gradient = gradient_of(guidance, made.images.shape)
    if anchor is None:
        training.backward(made.images, gradient)
    else:
        training.backward(made.images, gradient, anchor, _right(spec, guidance))


def _right(spec: pb.OptimizeSpec, guidance: Guidance) -> list[float]:
    """How probable each image's right answers are: the mean over questions by their weights."""
    weights = [asked.weight if asked.HasField("weight") else 1.0 for asked in spec.questions]
    return [
        sum(
            weight * answer.geometric_mean_probability
            for weight, answer in zip(weights, row, strict=True)
        )
        / sum(weights)
        for row in guidance.answers
    ]


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
