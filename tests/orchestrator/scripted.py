"""A generator and a VLM that follow a script, over real gRPC."""

from __future__ import annotations

import asyncio
import io
import math
from collections.abc import AsyncIterator, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
from PIL import Image
from safetensors.numpy import save

from dualprocess.v1 import generator_pb2 as pb
from dualprocess.v1 import generator_pb2_grpc, vlm_pb2, vlm_pb2_grpc

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

_ROWS = np.arange(12, dtype=np.float32).reshape(2, 6)
LORA = save(
    {
        "transformer.blocks.0.attn.to_k.lora_A.weight": _ROWS,
        "transformer.blocks.0.attn.to_k.lora_B.weight": _ROWS.T.copy(),
        "transformer.proj_out.lora_A.weight": _ROWS[:1] + 20,
        "transformer.proj_out.lora_B.weight": _ROWS.T[:, :1] - 20,
    },
    metadata={"format": "pt"},
)
NOT_FINITE = "the loss (nan) or its gradient is not finite"


@cache
def png(color: str, size: tuple[int, int] = (64, 64)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, "PNG")
    return buffer.getvalue()


class ScriptedGenerator(generator_pb2_grpc.GeneratorServicer):
    """Makes steps until its script says otherwise."""

    def __init__(self) -> None:
        #: How many attempts fail in the middle.
        self.breaks = 0
        self.refusal: str | None = None
        self.device_id = "GPU-1"
        #: How every attempt ends, or the next ``failures`` of them: status, sentence, metadata.
        self.fails: tuple[grpc.StatusCode, str, tuple[tuple[str, str], ...]] | None = None
        self.failures = math.inf
        #: The warnings that it sends for each job.
        self.warns: list[str] = []
        #: While unset, each job stops after its first step.
        self.go = asyncio.Event()
        self.go.set()
        self.active = 0
        self.most_active = 0
        self.served: list[str] = []
        self.teachers: list[tuple[str, float]] = []
        self.loras: list[bytes] = []
        #: The LoRA each optimise job began with.
        self.starts: list[bytes] = []
        #: The checkpoint each optimise job went on from, and those that are refused.
        self.resumes: list[bytes] = []
        self.refused_checkpoints: list[bytes] = []
        #: A job with this prompt kills the generator in each of its first steps, and with it
        #: whatever else runs there.
        self.fatal: str | None = None
        self._death = asyncio.Event()
        self._suspension = asyncio.Event()
        #: Attempts that break do so after this step.
        self.breaks_after = 0
        #: Steps that change nothing, and the step after which it gives up.
        self.skips: list[int] = []
        self.gives_up_after: int | None = None
        #: Of the right answer to each question, step by step; then the last one again.
        self.probabilities = [0.5]
        #: What changed in the evaluation's images, and what a step with an anchor tells.
        self.collateral: pb.Collateral | None = pb.Collateral(drift=0.25, diversity=0.75)
        self.step_collateral = pb.Collateral(drift=0.125)
        #: How long each step says that it took.
        self.step_seconds = 0.0
        #: The guard of each optimise job, as it came.
        self.guards: list[pb.GuardSpec] = []

    async def Describe(self, request: Any, context: Context) -> pb.GeneratorDescribeResponse:
        return pb.GeneratorDescribeResponse(preset="tiny-flux", device_id=self.device_id)

    async def Optimize(
        self, requests: AsyncIterator[pb.OptimizeRequest], context: Context
    ) -> AsyncIterator[pb.OptimizeResponse]:
        spec = (await anext(requests)).spec
        stop: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if spec.lora.start_blob:
            self.starts.append(await _blob(requests, spec.lora.start_blob, stop))
        if spec.HasField("resume"):
            self.resumes.append(await _blob(requests, spec.resume.blob, stop))
            if self.resumes[-1] in self.refused_checkpoints:
                await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "resume: no checkpoint")
        self.served.append(spec.prompts[0])
        self.guards.append(spec.guard)
        self.teachers = [(vlm.preset, vlm.weight) for vlm in spec.vlms]
        if not stop.done():
            stop = asyncio.ensure_future(anext(requests, None))
        self.active += 1
        self.most_active = max(self.most_active, self.active)
        try:
            async for response in self._optimize(spec, stop, context):
                yield response
        finally:
            self.active -= 1
            stop.cancel()

    def die(self) -> None:
        """Makes every running job fail."""
        self._death.set()
        self._death = asyncio.Event()

    def suspend(self) -> None:
        """Hands every running job back."""
        self._suspension.set()
        self._suspension = asyncio.Event()

    async def _optimize(
        self,
        spec: pb.OptimizeSpec,
        stop: asyncio.Future[Any],
        context: Context,
    ) -> AsyncIterator[pb.OptimizeResponse]:
        if self.refusal:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, self.refusal)
        if self.fails is not None and self.failures > 0:
            self.failures -= 1
            await context.abort(*self.fails)
        yield pb.OptimizeResponse(started=pb.Started(steps=spec.optimizer.steps))
        if self.warns:
            yield pb.OptimizeResponse(warnings=pb.Warnings(sentences=self.warns))
        done, death, suspension = spec.resume.step, self._death, self._suspension
        for step in range(done + 1, spec.optimizer.steps + 1):
            if stop.done() or suspension.is_set():
                break
            probability = self.probabilities[min(step, len(self.probabilities)) - 1]
            answer = vlm_pb2.AnswerResult(
                loss=1 / step,
                joint_probability=probability,
                geometric_mean_probability=probability,
            )
            answers = [answer] * len(spec.questions)
            if step in self.skips:
                yield pb.OptimizeResponse(skipped=pb.SkippedStep(step=step, reason=NOT_FINITE))
            else:
                told = pb.Step(step=step, loss=1 / step, questions=answers)
                told.timings.total = self.step_seconds
                if spec.guard.anchor:
                    told.collateral.CopyFrom(self.step_collateral)
                yield pb.OptimizeResponse(step=told)
            done = step
            if step == self.gives_up_after:
                break
            every = spec.optimizer.checkpoint_every
            if every and step % every == 0:
                for response in checkpoint(step):
                    yield response
            if self.breaks and step > self.breaks_after:
                self.breaks -= 1
                await context.abort(grpc.StatusCode.UNAVAILABLE, "out of memory, killed")
            if spec.prompts[0] == self.fatal:
                self.die()
            going = asyncio.ensure_future(self.go.wait())
            dying = asyncio.ensure_future(death.wait())
            leaving = asyncio.ensure_future(suspension.wait())
            ends = {going, dying, leaving, stop}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            leaving.cancel()
            going.cancel()
            dying.cancel()
            if death.is_set():
                await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
        request = stop.result() if stop.done() else None
        if suspension.is_set() or (request is not None and request.stop.suspend):
            for response in checkpoint(done):
                yield response
            finished = pb.Finished(steps_done=done, stopped=True, suspended=True)
            yield pb.OptimizeResponse(finished=finished)
            return
        yield pb.OptimizeResponse(preview=pb.Preview(step=done, seed=0, image=png("gray")))
        for name, data in self._files(spec):
            half = len(data) // 2
            for piece, last in ((data[:half], False), (data[half:], True)):
                chunk = pb.BlobChunk(name=name, data=piece, last=last)
                yield pb.OptimizeResponse(artifact=chunk)
        if self.collateral is not None:
            yield pb.OptimizeResponse(collateral=self.collateral)
        gave_up = NOT_FINITE if done == self.gives_up_after else ""
        stopped = done < spec.optimizer.steps and not gave_up
        finished = pb.Finished(steps_done=done, stopped=stopped, failed=gave_up)
        yield pb.OptimizeResponse(finished=finished)

    def _files(self, spec: pb.OptimizeSpec) -> list[tuple[str, bytes]]:
        files = [("pytorch_lora_weights.safetensors", LORA)]
        for seed in range(spec.eval.seed, spec.eval.seed + spec.eval.images):
            files += [(f"base-{seed}.png", png("white")), (f"lora-{seed}.png", png("red"))]
        return files

    async def Generate(
        self, requests: AsyncIterator[pb.GenerateRequest], context: Context
    ) -> AsyncIterator[pb.GenerateResponse]:
        spec = (await anext(requests)).spec
        self.served.append(spec.prompt)
        self.loras.append(b"".join([request.blob.data async for request in requests]))
        for seed in spec.seeds:
            told = self.warns if seed == spec.seeds[0] else []
            yield pb.GenerateResponse(seed=seed, image=png("red"), warnings=told)


def checkpoint_file(step: int) -> bytes:
    return f"after step {step}".encode()


def checkpoint(step: int) -> Iterator[pb.OptimizeResponse]:
    data = checkpoint_file(step)
    for part, last in ((data[:4], False), (data[4:], True)):
        piece = pb.BlobChunk(name="checkpoint", data=part, last=last)
        yield pb.OptimizeResponse(checkpoint=pb.Checkpoint(step=step, piece=piece))


async def _blob(
    requests: AsyncIterator[pb.OptimizeRequest], name: str, stop: asyncio.Future[Any]
) -> bytes:
    """The file; a stop that comes before it is done becomes ``stop``'s result."""
    data = b""
    async for request in requests:
        if request.HasField("stop"):
            stop.set_result(request)
            continue
        assert request.blob.name == name
        data += request.blob.data
        if request.blob.last:
            break
    return data


class ScriptedVlm(vlm_pb2_grpc.VlmServicer):
    """Answers Yes for images of the colour ``yes_of``, which is red by default. Its words are
    ``replies``, one after the other, then ``reply``."""

    def __init__(self) -> None:
        self.away = False
        self.yes_of = "red"
        self.replies: list[str] = []
        self.reply = "I see"
        self.refusal: str | None = None
        self.crashes = False
        self.never_answers = False
        #: What it was asked to say.
        self.asked: list[vlm_pb2.AnswerRequest] = []

    async def Describe(
        self, request: vlm_pb2.VlmDescribeRequest, context: Context
    ) -> vlm_pb2.VlmDescribeResponse:
        return vlm_pb2.VlmDescribeResponse(preset="tiny-idefics2")

    async def Score(self, request: vlm_pb2.ScoreRequest, context: Context) -> vlm_pb2.ScoreResponse:
        if self.away:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "nobody is at home")
        return vlm_pb2.ScoreResponse(
            images=[
                vlm_pb2.ImageAnswers(answers=[_answer(image, self.yes_of)] * len(request.questions))
                for image in request.images
            ]
        )

    async def Answer(
        self, request: vlm_pb2.AnswerRequest, context: Context
    ) -> vlm_pb2.AnswerResponse:
        if self.away:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "nobody is at home")
        if self.refusal:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, self.refusal)
        if self.never_answers:
            await asyncio.Event().wait()
        if self.crashes:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "out of memory")
        self.asked.append(request)
        return vlm_pb2.AnswerResponse(
            answers=[self.replies.pop(0) if self.replies else self.reply for _ in request.questions]
        )


def _answer(image: bytes, yes_of: str) -> vlm_pb2.AnswerResult:
    right = image == png(yes_of)
    probability = 0.9 if right else 0.1
    return vlm_pb2.AnswerResult(
        joint_probability=probability,
        geometric_mean_probability=probability,
        predicted="Yes" if right else "No",
    )
