"""The service over real gRPC, with a scripted VLM at the other end."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import pytest
from PIL import Image

from dualprocess.v1 import generator_pb2 as pb
from dualprocess.v1 import generator_pb2_grpc
from services.common.channels import CHUNK_BYTES
from services.common.limits import MESSAGE_LIMIT
from services.generator.families.base import GeneratorFamily
from services.generator.lora.export import LORA_FILE
from tests.generator.specs import image_spec, optimize_spec
from tests.generator.wire import ScriptedVlm, requests, vlm_served, whole


def apart(left: bytes, right: bytes) -> int:
    """The largest difference of two pictures, in 8-bit levels."""
    pixels = [np.asarray(Image.open(io.BytesIO(png))).astype(int) for png in (left, right)]
    return int(np.abs(pixels[0] - pixels[1]).max())


async def test_a_job_and_then_its_images(
    stub: generator_pb2_grpc.GeneratorAsyncStub, vlm: ScriptedVlm
) -> None:
    async with vlm_served(vlm) as port:
        spec = optimize_spec(target=f"127.0.0.1:{port}")
        told, files = await whole(stub.Optimize(iter(requests(spec))))
    assert told[-1].finished.steps_done == 3
    first = vlm.requests[0]
    assert list(first.images.shape) == [2, 3, 64, 64]
    assert [q.question for q in first.questions] == ["Is it bright?"]
    assert first.question_postfix == "Answer with Yes or No."
    step = told[1].step
    assert step.questions[0].joint_probability == pytest.approx(2.718281828**-step.loss, rel=1e-4)
    assert step.timings.total > step.timings.forward > 0

    async def images(weight: float) -> bytes:
        lora = pb.LoraReference(blob="mine", weight=weight)
        generate = pb.GenerateSpec(prompt="a circle", image=image_spec(), seeds=[0], loras=[lora])
        sent = [pb.GenerateRequest(spec=generate)]
        file = files[LORA_FILE]
        for begin in range(0, len(file), CHUNK_BYTES // 16):
            end = begin + CHUNK_BYTES // 16
            chunk = pb.BlobChunk(name="mine", data=file[begin:end], last=end >= len(file))
            sent.append(pb.GenerateRequest(blob=chunk))
        (answer,) = [answer async for answer in stub.Generate(iter(sent))]
        assert answer.seed == 0
        return answer.image

    # The file has the scale folded in, which rounds otherwise: a pixel may fall one level apart.
    assert apart(await images(1.0), files["lora-0.png"]) <= 1
    assert await images(0.0) == files["base-0.png"]
    assert apart(files["lora-0.png"], files["base-0.png"]) > 2


async def test_a_job_goes_on_from_the_lora_of_another(
    stub: generator_pb2_grpc.GeneratorAsyncStub, vlm: ScriptedVlm
) -> None:
    async with vlm_served(vlm) as port:
        spec = optimize_spec(target=f"127.0.0.1:{port}")
        _, first = await whole(stub.Optimize(iter(requests(spec))))
        spec.lora.start_blob, spec.optimizer.steps, spec.optimizer.lr = "first", 1, 1e-12
        file, half = first[LORA_FILE], len(first[LORA_FILE]) // 2
        pieces = [
            pb.BlobChunk(name="first", data=file[:half]),
            pb.BlobChunk(name="first", data=file[half:], last=True),
        ]
        sent = requests(spec) + [pb.OptimizeRequest(blob=piece) for piece in pieces]
        _, second = await whole(stub.Optimize(iter(sent)))
        assert apart(second["lora-0.png"], first["lora-0.png"]) <= 1
        assert apart(second["lora-0.png"], first["base-0.png"]) > 2
        with pytest.raises(
            grpc.aio.AioRpcError, match=r"lora\.start_blob: no complete blob named 'first'"
        ):
            await whole(stub.Optimize(iter(sent[:-1])))


async def test_the_job_waits_for_its_vlm_and_goes_on(
    stub: generator_pb2_grpc.GeneratorAsyncStub, vlm: ScriptedVlm
) -> None:
    async with vlm_served(vlm) as port:
        pass
    call = stub.Optimize(iter(requests(optimize_spec(target=f"127.0.0.1:{port}"))))
    responses = aiter(call)
    assert (await anext(responses)).HasField("started")
    assert "the VLM scripted at" in (await anext(responses)).waiting.reason
    async with vlm_served(vlm, port):
        told, _ = await whole(responses)
    assert [response.WhichOneof("message") for response in told][:3] == ["step"] * 3


async def test_a_vlm_that_refuses_ends_the_job_with_its_sentence(
    stub: generator_pb2_grpc.GeneratorAsyncStub, vlm: ScriptedVlm
) -> None:
    vlm.refuse = grpc.StatusCode.INVALID_ARGUMENT
    async with vlm_served(vlm) as port:
        with pytest.raises(grpc.aio.AioRpcError, match=r"questions\.0: not a question") as refusal:
            await whole(stub.Optimize(iter(requests(optimize_spec(target=f"127.0.0.1:{port}")))))
    assert refusal.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_a_vlm_that_is_late_each_time_ends_the_attempt(
    stub: generator_pb2_grpc.GeneratorAsyncStub, vlm: ScriptedVlm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.generator.guide.GUIDE_SECONDS", 0.05)
    vlm.never_answers = True
    async with vlm_served(vlm) as port:
        with pytest.raises(grpc.aio.AioRpcError, match=r"no answer within .* 3 times in a row"):
            await whole(stub.Optimize(iter(requests(optimize_spec(target=f"127.0.0.1:{port}")))))


async def test_stop_and_close(
    stub: generator_pb2_grpc.GeneratorAsyncStub, schnell: GeneratorFamily, vlm: ScriptedVlm
) -> None:
    async with vlm_served(vlm) as port:
        spec = optimize_spec(steps=200, target=f"127.0.0.1:{port}")
        stopped = stub.Optimize()
        await stopped.write(pb.OptimizeRequest(spec=spec))
        responses = aiter(stopped)
        while not (await anext(responses)).HasField("step"):
            pass
        await stopped.write(pb.OptimizeRequest(stop=pb.Stop()))
        told, files = await whole(responses)
        assert told[-1].finished.stopped
        assert told[-1].finished.steps_done < 200
        assert LORA_FILE in files

        closed = stub.Optimize(iter(requests(spec)))
        await anext(aiter(closed))
        closed.cancel()
        while schnell.adapters.adapters:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_a_suspended_job_goes_on_in_another_call(
    stub: generator_pb2_grpc.GeneratorAsyncStub, vlm: ScriptedVlm
) -> None:
    async with vlm_served(vlm) as port:
        spec = optimize_spec(steps=8, target=f"127.0.0.1:{port}")
        spec.optimizer.checkpoint_every = 100
        _, undisturbed = await whole(stub.Optimize(iter(requests(spec))))
        suspended = stub.Optimize()
        await suspended.write(pb.OptimizeRequest(spec=spec))
        responses = aiter(suspended)
        while not (await anext(responses)).HasField("step"):
            pass
        await suspended.write(pb.OptimizeRequest(stop=pb.Stop(suspend=True)))
        told, files = await whole(responses)
        assert told[-1].finished.suspended
        assert files == {}
        pieces = [one.checkpoint for one in told if one.HasField("checkpoint")]
        spec.resume.blob, spec.resume.step = "saved", pieces[0].step
        blobs = [
            pb.BlobChunk(name="saved", data=one.piece.data, last=one.piece.last) for one in pieces
        ]
        sent = requests(spec) + [pb.OptimizeRequest(blob=blob) for blob in blobs]
        told, files = await whole(stub.Optimize(iter(sent)))
        assert files == undisturbed
        assert told[1].step.step == pieces[0].step + 1
        sent[1].blob.data = b"nothing"
        with pytest.raises(grpc.aio.AioRpcError, match="resume: not a safetensors") as refusal:
            await whole(stub.Optimize(iter(sent)))
        assert refusal.value.code() == grpc.StatusCode.FAILED_PRECONDITION


def draw(spec: pb.OptimizeSpec, size: int) -> None:
    spec.questions[0].visual_prompt.image = bytes(size)


BAD = [
    (lambda spec: spec.prompts.clear(), "prompts"),
    (lambda spec: spec.questions.clear(), "questions"),
    (lambda spec: setattr(spec.image, "width", 50), "image.width: .* try 48 or 64"),
    (lambda spec: setattr(spec.image, "num_inference_steps", 0), "image.num_inference_steps"),
    (lambda spec: setattr(spec.optimizer, "steps", 0), "optimizer.steps"),
    (lambda spec: setattr(spec.optimizer, "steps", 10**6), "optimizer.steps"),
    (lambda spec: setattr(spec.optimizer, "lr", float("nan")), "optimizer.lr"),
    (lambda spec: setattr(spec.guard, "anchor", -1), "guard.anchor: must be finite"),
    (lambda spec: setattr(spec.guard, "anchor", float("inf")), "guard.anchor: must be finite"),
    (lambda spec: setattr(spec.guard, "margin", 1), "guard.margin: must be a probability below 1"),
    (lambda spec: setattr(spec.guard, "margin", float("nan")), "guard.margin: must be a prob"),
    (lambda spec: setattr(spec.guard, "worst_case", 2), "guard.worst_case: must be between"),
    (lambda spec: setattr(spec.lora, "rank", 0), "lora.rank"),
    (lambda spec: spec.lora.target_modules.append("nope"), "lora.target_modules: 'nope'"),
    (lambda spec: setattr(spec.vlms[0], "target", ""), r"vlms.0.target"),
    (lambda spec: setattr(spec.vlms[0], "target", " \n"), r"vlms.0.target: send the gRPC target"),
    (lambda spec: spec.vlms.extend([spec.vlms[0]] * 8), "vlms: at most 8, not 9"),
    (lambda spec: spec.prompts.append("a" * 4001), r"prompts\.1: has 4001 characters"),
    (lambda spec: spec.prompts.extend(["a"] * 1000), "prompts: at most 1000, not 1001"),
    (lambda spec: setattr(spec.vlms[0], "weight", 0), r"vlms.0.weight"),
    (lambda spec: spec.vlms.clear(), "vlms: at least one"),
    (lambda spec: setattr(spec.resume, "step", 1), r"resume\.blob: missing"),
    (lambda spec: spec.resume.MergeFrom(pb.Resume(blob="x", step=4)), r"resume\.step: must"),
    (lambda spec: draw(spec, MESSAGE_LIMIT - 65536), r"optimizer\.batch: .* write at most 1 and"),
    (lambda spec: draw(spec, MESSAGE_LIMIT - 32768), "questions: .* send smaller drawings"),
]


@pytest.mark.parametrize(("spoil", "sentence"), BAD, ids=[sentence for _, sentence in BAD])
async def test_a_bad_spec_is_refused_by_name(
    stub: generator_pb2_grpc.GeneratorAsyncStub,
    spoil: Callable[[pb.OptimizeSpec], Any],
    sentence: str,
) -> None:
    spec = optimize_spec()
    spoil(spec)
    with pytest.raises(grpc.aio.AioRpcError, match=sentence) as refusal:
        await whole(stub.Optimize(iter(requests(spec))))
    assert refusal.value.code() == grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("file", [b"", b"not a LoRA", b"\x10\0\0\0\0\0\0\0" + b"{}".ljust(16)])
async def test_a_broken_lora_is_refused(
    stub: generator_pb2_grpc.GeneratorAsyncStub, file: bytes
) -> None:
    lora = pb.LoraReference(blob="mine", weight=1.0)
    spec = pb.GenerateSpec(prompt="a circle", image=image_spec(), seeds=[0], loras=[lora])
    sent = [
        pb.GenerateRequest(spec=spec),
        pb.GenerateRequest(blob=pb.BlobChunk(name="mine", data=file, last=True)),
    ]
    with pytest.raises(grpc.aio.AioRpcError, match=r"loras\.0") as refusal:
        [answer async for answer in stub.Generate(iter(sent))]
    assert refusal.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_more_loras_than_an_image_takes_are_refused(
    stub: generator_pb2_grpc.GeneratorAsyncStub,
) -> None:
    lora = pb.LoraReference(blob="mine", weight=1)
    spec = pb.GenerateSpec(prompt="a circle", image=image_spec(), seeds=[0], loras=[lora] * 9)
    with pytest.raises(grpc.aio.AioRpcError, match="loras: must be between 0 and 8") as refusal:
        [_ async for _ in stub.Generate(iter([pb.GenerateRequest(spec=spec)]))]
    assert refusal.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_it_describes_itself(stub: generator_pb2_grpc.GeneratorAsyncStub) -> None:
    described = await stub.Describe(pb.GeneratorDescribeRequest())
    assert (described.preset, described.family, described.device) == (
        "flux-schnell",
        "flux",
        "cpu",
    )
