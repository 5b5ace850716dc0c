"""Turns gRPC messages into calls of the service, and results into messages."""

from __future__ import annotations

import math
import time
from collections.abc import Hashable, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import torch

from dualprocess.v1 import tensor_pb2, vlm_pb2, vlm_pb2_grpc
from services.common import pictures, torch_tensors
from services.common.device import DeviceThread
from services.common.errors import InvalidInput
from services.common.limits import MAX_IMAGES, guard_faults, text_fault
from services.common.presets import VlmPreset
from services.common.torch_tensors import DTYPES_BY_NAME, WIRE_DTYPES
from services.common.transfer import upload
from services.vlm.answers import Answer
from services.vlm.conversation import AskedQuestion
from services.vlm.families.base import VlmFamily
from services.vlm.guide import OFF, Guard, guide_together
from services.vlm.score import answer, score
from services.vlm.together import Together
from services.vlm.visual_prompt import VisualPrompt

if TYPE_CHECKING:
    import grpc

    Context = grpc.aio.ServicerContext[Any, Any]

SIDES = range(8, 4097)
MAX_QUESTIONS = 256
MAX_NEW_TOKENS = 512
DEFAULT_NEW_TOKENS = 64


class VlmServicer(vlm_pb2_grpc.VlmServicer):
    """``device_id`` is the device's name. ``joins``: whether Guide calls that wait together and are
    alike go through the model together. By default they do on a GPU; on the CPU nothing is gained,
    and a job's last bits would depend on other jobs."""

    def __init__(
        self,
        preset: VlmPreset,
        vlm: VlmFamily,
        device: DeviceThread,
        device_id: str = "",
        *,
        joins: bool | None = None,
    ) -> None:
        self._preset = preset
        self._vlm = vlm
        self._device = device
        self._device_id = device_id
        if joins is None:
            joins = device.device.type != "cpu"
        self._joins = joins
        self._guides = Together(device, self._guide, on=joins)

    async def Describe(
        self, request: vlm_pb2.VlmDescribeRequest, context: Context
    ) -> vlm_pb2.VlmDescribeResponse:
        return vlm_pb2.VlmDescribeResponse(
            preset=self._preset.name,
            family=self._preset.family,
            model=self._preset.model,
            dtype=WIRE_DTYPES[DTYPES_BY_NAME[self._preset.dtype]],
            device=self._device.name,
            version=version("dualprocess"),
            device_id=self._device_id,
            calls=self._device.waiting,
            quantized=self._preset.quantize or "",
            memory=self._vlm.memory,
        )

    async def Guide(self, request: vlm_pb2.GuideRequest, context: Context) -> vlm_pb2.GuideResponse:
        # The conversations of all images are to fit into one pass of the text model.
        most = self._preset.conversations_at_once // max(1, len(request.questions))
        kind = _kind(request) if self._joins else None
        return await self._guides.run(request, kind, _images(request), most)

    def _guide(self, requests: Sequence[vlm_pb2.GuideRequest]) -> list[vlm_pb2.GuideResponse]:
        """Answers calls of one kind, in the same passes through the model."""
        begin = time.perf_counter()
        calls = [self._read_images(request.images) for request in requests]
        first = requests[0]
        _check_text("question_postfix", first.question_postfix)
        guidances = guide_together(
            self._vlm,
            calls,
            asked_questions(first.questions),
            first.question_postfix,
            _guard(first.guard) if first.HasField("guard") else OFF,
        )
        responses = []
        for guidance in guidances:
            response = vlm_pb2.GuideResponse(
                loss=guidance.loss, images=[_image_answers(row) for row in guidance.answers]
            )
            # An argument of the constructor is written and parsed again; this is one copy.
            response.gradient.CopyFrom(torch_tensors.to_proto(guidance.gradient))
            response.seconds = time.perf_counter() - begin
            responses.append(response)
        return responses

    def _read_images(self, tensor: tensor_pb2.Tensor) -> torch.Tensor:
        """Checked, and on the device."""
        device = self._device.device
        images = torch_tensors.from_proto(
            tensor, name="images", shape=(None, 3, None, None), device=device
        )
        _check_images(images)
        return upload(images, device)

    async def Score(self, request: vlm_pb2.ScoreRequest, context: Context) -> vlm_pb2.ScoreResponse:
        if not request.images:
            raise InvalidInput("images: at least one is needed")
        if len(request.images) > MAX_IMAGES:
            raise InvalidInput(f"images: at most {MAX_IMAGES}, not {len(request.images)}")
        _check_text("question_postfix", request.question_postfix)
        questions = asked_questions(request.questions)
        scored = []
        for index, data in enumerate(request.images):
            picture = pictures.decode(data, f"images.{index}")
            answers = await self._device.run(
                score, self._vlm, picture, questions, request.question_postfix
            )
            scored.append(_image_answers(answers))
        return vlm_pb2.ScoreResponse(images=scored)

    async def Answer(
        self, request: vlm_pb2.AnswerRequest, context: Context
    ) -> vlm_pb2.AnswerResponse:
        picture = pictures.decode(request.image, "image")
        if not request.questions:
            raise InvalidInput("questions: at least one is needed")
        if len(request.questions) > MAX_QUESTIONS:
            raise InvalidInput(f"questions: at most {MAX_QUESTIONS}, not {len(request.questions)}")
        for index, question in enumerate(request.questions):
            _check_text(f"questions.{index}", question)
        _check_text("question_postfix", request.question_postfix)
        if request.max_new_tokens > MAX_NEW_TOKENS:
            raise InvalidInput(f"max_new_tokens: at most {MAX_NEW_TOKENS}")
        answers = [
            await self._device.run(
                answer,
                self._vlm,
                picture,
                question,
                request.question_postfix,
                max_new_tokens=request.max_new_tokens or DEFAULT_NEW_TOKENS,
                field=f"questions.{index}",
            )
            for index, question in enumerate(request.questions)
        ]
        return vlm_pb2.AnswerResponse(answers=answers)


def _kind(request: vlm_pb2.GuideRequest) -> Hashable:
    """What calls must have in common to go through the model together: all but the images'
    values and their number."""
    return (
        request.images.dtype,
        *request.images.shape[1:],
        request.question_postfix,
        request.HasField("guard"),
        request.guard.SerializeToString(deterministic=True),
        *(question.SerializeToString(deterministic=True) for question in request.questions),
    )


def _images(request: vlm_pb2.GuideRequest) -> int:
    """The number of images of a request that is not checked yet."""
    return max([1, *request.images.shape[:1]])


def asked_questions(questions: Sequence[vlm_pb2.Question]) -> list[AskedQuestion]:
    """Checked questions. Raises ``InvalidInput`` that names the field."""
    if not questions:
        raise InvalidInput("questions: at least one is needed")
    if len(questions) > MAX_QUESTIONS:
        raise InvalidInput(f"questions: at most {MAX_QUESTIONS}, not {len(questions)}")
    return [_asked(question, f"questions.{index}") for index, question in enumerate(questions)]


def _asked(question: vlm_pb2.Question, field: str) -> AskedQuestion:
    if not question.question.strip():
        raise InvalidInput(f"{field}.question: is empty; write what to ask about the image")
    if not question.answer.strip():
        raise InvalidInput(f"{field}.answer: is empty; write the right answer, like Yes")
    _check_text(f"{field}.question", question.question)
    _check_text(f"{field}.answer", question.answer)
    prompt = None
    if question.HasField("visual_prompt"):
        drawn = question.visual_prompt
        prompt = VisualPrompt.decode(drawn.image, drawn.mode, f"{field}.visual_prompt")
    weight = question.weight if question.HasField("weight") else 1.0
    if not (math.isfinite(weight) and weight > 0):
        raise InvalidInput(f"{field}.weight: must be positive; leave a question out to drop it")
    return AskedQuestion(question.question, question.answer, prompt, weight, field)


def _guard(guard: vlm_pb2.GuideGuard) -> Guard:
    for fault in guard_faults(guard):
        raise InvalidInput(": ".join(fault))
    return Guard(guard.margin or None, guard.worst_case)


def _check_text(field: str, text: str) -> None:
    if fault := text_fault(text):
        raise InvalidInput(f"{field}: {fault}")


def _check_images(images: torch.Tensor) -> None:
    if len(images) > MAX_IMAGES:
        raise InvalidInput(f"images: at most {MAX_IMAGES}, not {len(images)}")
    height, width = images.shape[-2:]
    if height not in SIDES or width not in SIDES:
        raise InvalidInput(
            f"images: {width} × {height} pixels; each side must be between "
            f"{SIDES.start} and {SIDES.stop - 1}"
        )


def _image_answers(answers: Sequence[Answer]) -> vlm_pb2.ImageAnswers:
    return vlm_pb2.ImageAnswers(
        answers=[
            vlm_pb2.AnswerResult(
                loss=answer.loss,
                joint_probability=answer.joint_probability,
                geometric_mean_probability=answer.geometric_mean_probability,
                predicted=answer.predicted,
            )
            for answer in answers
        ]
    )
