"""Asks the VLM what is wrong with images, and waits for it when it is away."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import grpc
import torch

from dualprocess.errors import TensorError
from dualprocess.v1 import tensor_pb2, vlm_pb2, vlm_pb2_grpc
from services.common import torch_tensors
from services.common.channels import AWAY
from services.common.errors import BadGradient, InvalidInput, NonFinite, OutOfDeviceMemory
from services.common.vlm_metrics import vlm_call, vlm_retried

log = logging.getLogger(__name__)

#: A call that takes longer than this has lost its VLM. The first one may compile kernels.
GUIDE_SECONDS = 120.0
#: One that is late so often in a row is no more in time for the next call.
MOST_LATE = 3

#: Pauses between tries while the VLM is away; the last one repeats.
RETRY_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0)


_REFUSALS = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidInput,
    grpc.StatusCode.DATA_LOSS: NonFinite,
    grpc.StatusCode.RESOURCE_EXHAUSTED: OutOfDeviceMemory,
}


@dataclass(frozen=True)
class Guidance:
    """What a VLM says of one batch of images.

    ``answers`` has a row for each image, in it an entry for each question. ``gradient`` is
    d loss / d images, as far as the job's guard lets it through; loss and answers are those of the
    images themselves. ``device_seconds`` is the VLM's own time.
    """

    loss: float
    answers: Sequence[Sequence[vlm_pb2.AnswerResult]]
    gradient: tensor_pb2.Tensor
    device_seconds: float


def gradient_of(guidance: Guidance, images: Sequence[int]) -> torch.Tensor:
    """d loss / d images, as it is applied to images of this shape. Raises ``BadGradient``."""
    try:
        return torch_tensors.from_proto(guidance.gradient, name="gradient", shape=tuple(images))
    except TensorError as error:
        raise BadGradient(f"the VLM's answer can't be used: {error}") from error


#: Loss and gradient for images [batch, 3, height, width] in [-1, 1].
Guide = Callable[[tensor_pb2.Tensor], Awaitable[Guidance]]


class VlmGuide:
    """A ``Guide`` behind a gRPC channel.

    The VLM keeps no state, so a call that found nobody is tried again, on another replica or
    when one is back; ``waiting`` is told once an outage. Raises what the VLM's refusal means.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        questions: Sequence[vlm_pb2.Question],
        question_postfix: str,
        guard: vlm_pb2.GuideGuard,
        *,
        preset: str,
        target: str,
        waiting: Callable[[str], Awaitable[None]],
    ) -> None:
        self._stub = vlm_pb2_grpc.VlmStub(channel)
        self._questions = questions
        self._postfix = question_postfix
        self._guard = guard
        self._preset = preset
        self._name = f"{preset} at {target}"
        self._waiting = waiting

    async def __call__(self, images: tensor_pb2.Tensor) -> Guidance:
        request = vlm_pb2.GuideRequest(
            images=images,
            questions=self._questions,
            question_postfix=self._postfix,
            guard=self._guard,
        )
        response = await self._ask(request)
        answers = [image.answers for image in response.images]
        wanted = [len(self._questions)] * images.shape[0]
        if [len(row) for row in answers] != wanted:
            raise BadGradient(
                f"the VLM {self._name} answered {[len(row) for row in answers]} questions of "
                f"{images.shape[0]} images; {len(self._questions)} were asked of each"
            )
        return Guidance(
            loss=response.loss,
            answers=answers,
            gradient=response.gradient,
            device_seconds=response.seconds,
        )

    async def _ask(self, request: vlm_pb2.GuideRequest) -> vlm_pb2.GuideResponse:
        tries = late = 0
        while True:
            try:
                with vlm_call(self._preset, "Guide"):
                    return await self._stub.Guide(request, timeout=GUIDE_SECONDS)
            except grpc.aio.AioRpcError as error:
                if error.code() not in AWAY:
                    raise self._refusal(error) from error
                late = late + 1 if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED else 0
                if late == MOST_LATE:
                    raise RuntimeError(
                        f"the VLM {self._name} gave no answer within {GUIDE_SECONDS:g} s, "
                        f"{late} times in a row"
                    ) from error
                if tries == 0:
                    reason = f"the VLM {self._name} is away: {error.details()}"
                    log.warning("%s", reason)
                    await self._waiting(reason)
            await asyncio.sleep(RETRY_SECONDS[min(tries, len(RETRY_SECONDS) - 1)])
            tries += 1
            vlm_retried(self._preset)

    def _refusal(self, error: grpc.aio.AioRpcError) -> Exception:
        kind = _REFUSALS.get(error.code(), RuntimeError)
        return kind(f"the VLM {self._name} refused: {error.details()}")
