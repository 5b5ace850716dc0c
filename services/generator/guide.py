"""Asks the VLM for the loss and gradient of images, and waits while the VLM is away."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import grpc
import torch

from dualprocess.errors import TensorError
from dualprocess.v1 import tensor_pb2, vlm_pb2
from services.common import torch_tensors
from services.common.errors import (
    BadGradient,
    InvalidInput,
    NonFinite,
    OutOfDeviceMemory,
    VlmLate,
    VlmRefused,
)
from services.common.replicas import MOST_LATE, Replicas, Told

log = logging.getLogger(__name__)

#: A call that takes longer than this is given up. The first call may compile kernels.
GUIDE_SECONDS = 120.0

_REFUSALS = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidInput,
    grpc.StatusCode.DATA_LOSS: NonFinite,
    grpc.StatusCode.RESOURCE_EXHAUSTED: OutOfDeviceMemory,
}


@dataclass(frozen=True)
class Guidance:
    """The answer of a VLM for one batch of images.

    ``answers`` has a row for each image, in it an entry for each question. ``gradient`` is d loss /
    d images, as changed by the job's guard; loss and answers are those of the images themselves.
    ``device_seconds`` is the VLM's own time.
    """

    loss: float
    answers: Sequence[Sequence[vlm_pb2.AnswerResult]]
    gradient: tensor_pb2.Tensor
    device_seconds: float


def gradient_of(
    guidance: Guidance, images: Sequence[int], device: torch.device | None = None
) -> torch.Tensor:
    """d loss / d images, for images of this shape, still on the CPU; ``device`` is where it is to
    go. Raises ``BadGradient``."""
    try:
        return torch_tensors.from_proto(
            guidance.gradient, name="gradient", shape=tuple(images), device=device
        )
    except TensorError as error:
        raise BadGradient(f"the VLM's answer can't be used: {error}") from error


#: Loss and gradient for images [batch, 3, height, width] in [-1, 1].
Guide = Callable[[tensor_pb2.Tensor], Awaitable[Guidance]]


class VlmGuide:
    """A ``Guide`` behind gRPC.

    The VLM keeps no state, so a call that reached nobody is tried again, with another replica or
    when one is back; ``waiting`` is called once per outage. A call that a replica failed goes to
    another one, and ``warn`` is called. If the VLM refuses, raises the matching error; also raises
    ``VlmsFailed`` and ``VlmLate``.
    """

    def __init__(
        self,
        replicas: Replicas,
        questions: Sequence[vlm_pb2.Question],
        question_postfix: str,
        guard: vlm_pb2.GuideGuard,
        *,
        waiting: Callable[[str], Awaitable[None]],
        warn: Callable[[str], Awaitable[None]],
    ) -> None:
        self._replicas = replicas
        self._warn = warn
        #: Every request but its images.
        self._asked = vlm_pb2.GuideRequest(
            questions=questions, question_postfix=question_postfix, guard=guard
        )
        self._name = replicas.name
        self._waiting = waiting

    async def __call__(self, images: tensor_pb2.Tensor) -> Guidance:
        request = vlm_pb2.GuideRequest()
        request.CopyFrom(self._asked)
        # An argument of the constructor is written and parsed again; this is one copy.
        request.images.CopyFrom(images)
        response = await self._ask(request)
        answers = [image.answers for image in response.images]
        questions = len(self._asked.questions)
        wanted = [questions] * images.shape[0]
        if [len(row) for row in answers] != wanted:
            raise BadGradient(
                f"the VLM {self._name} answered {[len(row) for row in answers]} questions of "
                f"{images.shape[0]} images; {questions} were asked of each"
            )
        return Guidance(
            loss=response.loss,
            answers=answers,
            gradient=response.gradient,
            device_seconds=response.seconds,
        )

    async def _ask(self, request: vlm_pb2.GuideRequest) -> vlm_pb2.GuideResponse:
        told = Told(away=self._once_an_outage(), failed=self._warn)
        try:
            return await self._replicas.ask(
                "Guide", lambda stub: stub.Guide(request, timeout=GUIDE_SECONDS), told
            )
        except grpc.aio.AioRpcError as error:
            raise self._refusal(error) from error
        except VlmLate as error:
            raise VlmLate(
                f"the VLM {self._name} gave no answer within {GUIDE_SECONDS:g} s, "
                f"{MOST_LATE} times in a row"
            ) from error

    def _once_an_outage(self) -> Callable[[str], Awaitable[None]]:
        is_told = False

        async def away(reason: str) -> None:
            nonlocal is_told
            if not is_told:
                is_told = True
                log.warning("%s", reason)
                await self._waiting(reason)

        return away

    def _refusal(self, error: grpc.aio.AioRpcError) -> Exception:
        kind = _REFUSALS.get(error.code(), VlmRefused)
        return kind(f"the VLM {self._name} refused: {error.details()}")
