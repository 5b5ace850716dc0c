"""The service over real gRPC."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import numpy as np
import pytest
import torch

from dualprocess.v1 import tensor_pb2, vlm_pb2, vlm_pb2_grpc
from services.common import torch_tensors
from services.common.channels import LIMITS, open_channel
from services.common.device import DeviceThread
from services.common.presets import VlmPreset
from services.common.server import StatusInterceptor
from services.vlm.conversation import AskedQuestion
from services.vlm.families.base import VlmFamily
from services.vlm.guide import Guard, guide
from services.vlm.servicer import VlmServicer
from tests.vlm.conftest import png

POSTFIX = "Answer with Yes or No."
QUESTION = vlm_pb2.Question(question="Is the man smiling?", answer="Yes")


@pytest.fixture
async def stub(preset: VlmPreset, vlm: VlmFamily) -> AsyncIterator[vlm_pb2_grpc.VlmAsyncStub]:
    device = DeviceThread("cpu")
    server = grpc.aio.server(options=LIMITS, interceptors=[StatusInterceptor()])
    vlm_pb2_grpc.add_VlmServicer_to_server(VlmServicer(preset, vlm, device), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with open_channel(f"127.0.0.1:{port}") as channel:
        yield vlm_pb2_grpc.VlmStub(channel)
    await server.stop(None)
    device.close()


def request(images: torch.Tensor, *questions: vlm_pb2.Question) -> vlm_pb2.GuideRequest:
    return vlm_pb2.GuideRequest(
        images=torch_tensors.to_proto(images),
        questions=questions or [QUESTION],
        question_postfix=POSTFIX,
    )


async def test_the_wire_changes_no_bit(
    stub: vlm_pb2_grpc.VlmAsyncStub, vlm: VlmFamily, images: dict[str, torch.Tensor]
) -> None:
    batch = torch.cat([images["photo"], images["low"]])
    response = await stub.Guide(request(batch))
    here = guide(vlm, batch, [AskedQuestion(QUESTION.question, QUESTION.answer)], POSTFIX)
    gradient = torch_tensors.from_proto(response.gradient, name="gradient")
    assert torch.equal(gradient, here.gradient)
    assert response.loss == np.float32(here.loss)
    assert len(response.images) == 2
    assert response.images[1].answers[0].predicted == here.answers[1][0].predicted
    assert response.seconds > 0


def spoiled(**changes: object) -> tensor_pb2.Tensor:
    tensor = torch_tensors.to_proto(torch.zeros(1, 3, 16, 16))
    for field, value in changes.items():
        if field == "shape":
            tensor.ClearField("shape")
            tensor.shape.extend(value)  # type: ignore[arg-type]
        else:
            setattr(tensor, field, value)
    return tensor


NAN = np.full((1, 3, 16, 16), np.nan, "<f4").tobytes()
BAD_TENSORS = [
    (spoiled(data=b"\0" * 5), "images: .* needs 3072 bytes, but 5 came"),
    (spoiled(shape=[2**62, 3, 2**62, 4]), "images: .*bytes"),
    (spoiled(shape=[-1, 3, 16, 16]), "images: shape .* positive"),
    (spoiled(shape=[1, 4, 16, 12]), r"images: shape .* is not \[any, 3, any, any\]"),
    (spoiled(dtype=77), "images: dtype 77 is unknown"),
    (spoiled(data=NAN), "images: holds NaN"),
    (torch_tensors.to_proto(torch.zeros(1, 3, 4, 64)), "images: 64 × 4 pixels"),
    (torch_tensors.to_proto(torch.zeros(65, 3, 8, 8)), "images: at most 64, not 65"),
    (tensor_pb2.Tensor(), "images: dtype 0 is unknown"),
]


@pytest.mark.parametrize(("tensor", "sentence"), BAD_TENSORS)
async def test_a_malformed_tensor_is_refused_and_the_service_lives(
    stub: vlm_pb2_grpc.VlmAsyncStub, tensor: tensor_pb2.Tensor, sentence: str
) -> None:
    bad = vlm_pb2.GuideRequest(images=tensor, questions=[QUESTION])
    with pytest.raises(grpc.aio.AioRpcError, match=sentence) as refusal:
        await stub.Guide(bad)
    assert refusal.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert (await stub.Guide(request(torch.zeros(1, 3, 16, 16)))).loss > 0


def drawn(image: bytes, mode: vlm_pb2.VisualPromptMode.ValueType) -> vlm_pb2.Question:
    prompt = vlm_pb2.VisualPrompt(image=image, mode=mode)
    return vlm_pb2.Question(question="Is it?", answer="Yes", visual_prompt=prompt)


def weighing(weight: float) -> vlm_pb2.Question:
    return vlm_pb2.Question(question="Is it?", answer="Yes", weight=weight)


SMALL = png(np.zeros((4, 4, 3), np.uint8))
SOLID = vlm_pb2.VISUAL_PROMPT_MODE_SOLID
BAD_QUESTIONS = [
    (vlm_pb2.Question(question=" ", answer="Yes"), r"questions\.0\.question: is empty"),
    (vlm_pb2.Question(question="Is it?"), r"questions\.0\.answer: is empty"),
    (vlm_pb2.Question(question="Is it <image>?", answer="Yes"), "control token"),
    (vlm_pb2.Question(question="a" * 4001, answer="Yes"), r"0\.question: has 4001 characters"),
    (vlm_pb2.Question(question="Is it?", answer="a" * 4001), r"0\.answer: has 4001 characters"),
    (weighing(0), r"questions\.0\.weight: must be positive; leave a question out"),
    (weighing(-1), r"questions\.0\.weight: must be positive"),
    (weighing(float("nan")), r"questions\.0\.weight: must be positive"),
    (weighing(float("inf")), r"questions\.0\.weight: must be positive"),
    (drawn(b"no picture", SOLID), r"questions\.0\.visual_prompt\.image: not a whole PNG"),
    (drawn(SMALL[:45], SOLID), r"questions\.0\.visual_prompt\.image: not a whole PNG"),
    (drawn(SMALL, vlm_pb2.VISUAL_PROMPT_MODE_UNSPECIFIED), r"visual_prompt\.mode: choose"),
]


@pytest.mark.parametrize(("question", "sentence"), BAD_QUESTIONS)
async def test_a_bad_question_is_refused_by_name(
    stub: vlm_pb2_grpc.VlmAsyncStub, question: vlm_pb2.Question, sentence: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match=sentence) as refusal:
        await stub.Guide(request(torch.zeros(1, 3, 16, 16), question))
    assert refusal.value.code() == grpc.StatusCode.INVALID_ARGUMENT


BAD_GUARDS = [
    ({"margin": 1}, r"guard\.margin: must be a probability below 1"),
    ({"margin": -0.1}, r"guard\.margin: must be a probability below 1"),
    ({"margin": float("nan")}, r"guard\.margin: must be a probability below 1"),
    ({"worst_case": 1.5}, r"guard\.worst_case: must be between 0 and 1"),
    ({"worst_case": -1}, r"guard\.worst_case: must be between 0 and 1"),
    ({"worst_case": float("nan")}, r"guard\.worst_case: must be between 0 and 1"),
]


@pytest.mark.parametrize(("fields", "sentence"), BAD_GUARDS)
async def test_a_guard_that_cannot_be_is_refused_by_name(
    stub: vlm_pb2_grpc.VlmAsyncStub, fields: dict[str, float], sentence: str
) -> None:
    bad = request(torch.zeros(1, 3, 16, 16))
    bad.guard.MergeFrom(vlm_pb2.GuideGuard(**fields))
    with pytest.raises(grpc.aio.AioRpcError, match=sentence) as refusal:
        await stub.Guide(bad)
    assert refusal.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_guard_and_weights_go_over_the_wire(
    stub: vlm_pb2_grpc.VlmAsyncStub, vlm: VlmFamily, images: dict[str, torch.Tensor]
) -> None:
    questions = [vlm_pb2.Question(question="Is it?", answer=a, weight=w) for a, w in WEIGHED]
    sent = request(images["photo"], *questions)
    sent.guard.MergeFrom(vlm_pb2.GuideGuard(margin=0.5, worst_case=0.25))
    response = await stub.Guide(sent)
    asked = [AskedQuestion("Is it?", answer, weight=weight) for answer, weight in WEIGHED]
    here = guide(vlm, images["photo"], asked, POSTFIX, Guard(margin=0.5, worst_case=0.25))
    assert torch.equal(torch_tensors.from_proto(response.gradient, name="gradient"), here.gradient)
    assert response.loss == np.float32(here.loss)


WEIGHED = [("Yes", 0.5), ("No", 4.0)]
BAD_ASKING = [
    ({"questions": ["Is it <image>?"]}, r"questions\.0: '<image>' is a control token"),
    ({"question_postfix": "<image>"}, "question_postfix: '<image>' is a control token"),
    ({"question_postfix": "a" * 4001}, "question_postfix: has 4001 characters"),
    ({"questions": ["a" * 4001]}, r"questions\.0: has 4001 characters"),
    ({"questions": ["Why?"] * 257}, "questions: at most 256, not 257"),
    ({"questions": []}, "questions: at least one"),
]


@pytest.mark.parametrize(("changes", "sentence"), BAD_ASKING)
async def test_what_an_answer_can_not_be_about(
    stub: vlm_pb2_grpc.VlmAsyncStub, changes: dict[str, Any], sentence: str
) -> None:
    asking = {"image": SMALL, "questions": ["Why?"]} | changes
    with pytest.raises(grpc.aio.AioRpcError, match=sentence) as refusal:
        await stub.Answer(vlm_pb2.AnswerRequest(**asking))
    assert refusal.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_a_decompression_bomb_is_refused_by_its_header(
    stub: vlm_pb2_grpc.VlmAsyncStub,
) -> None:
    header = bytearray(SMALL)
    header[16:24] = (60_000).to_bytes(4, "big") * 2
    with pytest.raises(grpc.aio.AioRpcError, match=r"images\.0"):
        await stub.Score(vlm_pb2.ScoreRequest(images=[bytes(header)], questions=[QUESTION]))


async def test_score_answer_describe(stub: vlm_pb2_grpc.VlmAsyncStub) -> None:
    scored = await stub.Score(
        vlm_pb2.ScoreRequest(images=[SMALL, SMALL], questions=[QUESTION, QUESTION])
    )
    assert len(scored.images) == 2
    assert len(scored.images[0].answers) == 2
    assert scored.images[0] == scored.images[1]
    said = await stub.Answer(vlm_pb2.AnswerRequest(image=SMALL, questions=["Well?", "Really?"]))
    assert len(said.answers) == 2
    described = await stub.Describe(vlm_pb2.VlmDescribeRequest())
    assert (described.preset, described.family) == ("idefics2", "idefics2")
