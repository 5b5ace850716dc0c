"""Malformed calls of both GPU services, and what may come back: a status with a sentence."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import grpc
import numpy as np
from google.protobuf.message import Message
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from PIL import Image

from dualprocess.v1 import generator_pb2 as pb
from dualprocess.v1 import generator_pb2_grpc, tensor_pb2, vlm_pb2
from services.common.channels import LIMITS
from tests.fuzz.mutations import mutated, spoiled
from tests.fuzz.services import VLM
from tests.generator.specs import lora_spec

#: Longer calls are given up: what is asked for may be much, and valid.
_SECONDS = 15.0
#: Streams are given up after this many answers.
_ANSWERS = 4

#: These statuses mean a fault of the service, or that it is gone.
_OURS = (grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNAVAILABLE)

Requests: TypeAlias = list[bytes]


@dataclass(frozen=True)
class Target:
    """One method, and a good call of it."""

    service: str
    method: str
    good: Sequence[Message]

    @property
    def path(self) -> str:
        wing = "Vlm" if self.service == "vlm" else "Generator"
        return f"/dualprocess.v1.{wing}/{self.method}"

    @property
    def streams(self) -> bool:
        return self.method in ("Optimize", "Generate")


@dataclass
class Findings:
    """How many calls ended with each status, and the calls that must not end so."""

    statuses: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def note(self, target: Target, code: grpc.StatusCode, details: str) -> None:
        self.statuses[code.name] += 1
        if code in _OURS or (code != grpc.StatusCode.OK and not details.strip()):
            self.faults.append(f"{target.method}: {code.name}: {details or 'no sentence'}")


def call(channel: grpc.Channel, target: Target, requests: Requests) -> tuple[grpc.StatusCode, str]:
    """Sends bytes as they are. Status and details."""
    try:
        if target.streams:
            streaming: grpc.StreamStreamMultiCallable[bytes, bytes]
            streaming = channel.stream_stream(target.path)
            stream = streaming(iter(requests), timeout=_SECONDS)
            for _ in zip(range(_ANSWERS), stream, strict=False):
                pass
            stream.cancel()
        else:
            unary: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(target.path)
            unary(requests[0], timeout=_SECONDS)
    except grpc.RpcError as error:
        return error.code(), error.details() or ""
    return grpc.StatusCode.OK, ""


def fuzz(address: str, target: Target, *, examples: int, random_seed: int) -> Findings:
    """``examples`` malformed calls, the same ones for the same seed."""
    findings = Findings()
    with grpc.insecure_channel(address, options=LIMITS) as channel:

        @seed(random_seed)
        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(requests=malformed(target.good))
        def attack(requests: Requests) -> None:
            findings.note(target, *call(channel, target, requests))

        attack()
        code, details = call(channel, target, [one.SerializeToString() for one in target.good])
        if code != grpc.StatusCode.OK:
            findings.faults.append(f"{target.method}, a good call afterwards: {code}: {details}")
    return findings


@st.composite
def malformed(draw: Callable[[st.SearchStrategy[Any]], Any], good: Sequence[Message]) -> Requests:
    """The messages of ``good`` with one of them spoiled, one missing or one twice."""
    sent = list(good)
    requests = [message.SerializeToString() for message in sent]
    index = draw(st.integers(0, len(sent) - 1))
    match draw(st.sampled_from(["fields", "fields", "fields", "bytes", "order"])):
        case "fields":
            requests[index] = draw(mutated(sent[index])).SerializeToString()
        case "bytes":
            requests[index] = draw(spoiled(requests[index]))
        case _ if len(requests) > 1:
            other = draw(st.integers(0, len(sent)))
            moved = requests.pop(index)
            requests[other:other] = [moved] * draw(st.integers(0, 2))
        case _:
            requests[index] *= 2
    return requests


def vlm_targets() -> Iterator[Target]:
    picture = _png()
    drawn = vlm_pb2.VisualPrompt(image=picture, mode=vlm_pb2.VISUAL_PROMPT_MODE_SOLID)
    questions = [
        vlm_pb2.Question(question="Is it red?", answer="Yes"),
        vlm_pb2.Question(question="Where?", answer="Left", visual_prompt=drawn),
    ]
    pixels = np.linspace(-1, 1, 3 * 16 * 16, dtype="<f4").tobytes()
    images = tensor_pb2.Tensor(dtype=tensor_pb2.DTYPE_FLOAT32, shape=[1, 3, 16, 16], data=pixels)
    yield Target(
        "vlm",
        "Guide",
        [vlm_pb2.GuideRequest(images=images, questions=questions, question_postfix="Say.")],
    )
    yield Target("vlm", "Score", [vlm_pb2.ScoreRequest(images=[picture], questions=questions)])
    yield Target(
        "vlm",
        "Answer",
        [vlm_pb2.AnswerRequest(image=picture, questions=["Well?"], max_new_tokens=2)],
    )
    yield Target("vlm", "Describe", [vlm_pb2.VlmDescribeRequest()])


def generator_targets(generator: str, vlm: str) -> Iterator[Target]:
    """``generator`` and ``vlm`` are addresses: files of a real, short job are part of the calls."""
    spec = _optimize_spec(vlm)
    files = _run(generator, spec)
    lora = pb.BlobChunk(name="lora", data=files["pytorch_lora_weights.safetensors"], last=True)
    checkpoint = pb.BlobChunk(name="checkpoint", data=files["checkpoint"], last=True)
    yield Target("generator", "Optimize", [pb.OptimizeRequest(spec=spec)])
    begun = pb.OptimizeSpec()
    begun.CopyFrom(spec)
    begun.lora.start_blob = "lora"
    yield Target(
        "generator", "Optimize", [pb.OptimizeRequest(spec=begun), pb.OptimizeRequest(blob=lora)]
    )
    resumed = pb.OptimizeSpec()
    resumed.CopyFrom(spec)
    resumed.resume.CopyFrom(pb.Resume(blob="checkpoint", step=1))
    yield Target(
        "generator",
        "Optimize",
        [pb.OptimizeRequest(spec=resumed), pb.OptimizeRequest(blob=checkpoint)],
    )
    generate = pb.GenerateSpec(
        prompt="a circle",
        image=spec.image,
        seeds=[1],
        loras=[pb.LoraReference(blob="lora", weight=1)],
    )
    yield Target(
        "generator", "Generate", [pb.GenerateRequest(spec=generate), pb.GenerateRequest(blob=lora)]
    )
    yield Target("generator", "Describe", [pb.GeneratorDescribeRequest()])


def _optimize_spec(vlm: str) -> pb.OptimizeSpec:
    lora = lora_spec(rank=1)
    del lora.target_modules[1:]
    return pb.OptimizeSpec(
        prompts=["a circle"],
        questions=[vlm_pb2.Question(question="Is it bright?", answer="Yes")],
        vlms=[pb.VlmEndpoint(preset=VLM, target=vlm, weight=1)],
        image=pb.ImageSpec(width=16, height=16, num_inference_steps=1),
        lora=lora,
        optimizer=pb.OptimizerSpec(
            steps=2,
            batch=1,
            accumulate=1,
            lr=1e-3,
            max_grad_norm=1,
            noise_seeds=2,
            checkpoint_every=1,
            timestep=pb.TIMESTEP_RANDOM,
        ),
        eval=pb.EvalSpec(images=1),
    )


def _run(generator: str, spec: pb.OptimizeSpec) -> dict[str, bytes]:
    """The files of a whole job, and its first checkpoint."""
    files: dict[str, bytes] = {}
    with grpc.insecure_channel(generator, options=LIMITS) as channel:
        requests = iter([pb.OptimizeRequest(spec=spec)])
        for told in generator_pb2_grpc.GeneratorStub(channel).Optimize(requests, timeout=60):
            if told.HasField("artifact"):
                files[told.artifact.name] = told.artifact.data
            if told.HasField("checkpoint"):
                files.setdefault("checkpoint", told.checkpoint.piece.data)
    return files


def _png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), "teal").save(buffer, "PNG")
    return buffer.getvalue()
