"""A teacher of your own: `python -m examples.custom_teacher --port 50060`.

It measures the mean colour of a picture, so "Is it red?" is answered by the pixels and not by a
model. docs/teachers.md tells what any teacher has to do, and how a job names it.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import math
from typing import Any

import grpc
import numpy as np
import torch
from PIL import Image

from dualprocess.v1 import tensor_pb2, vlm_pb2, vlm_pb2_grpc

DTYPES = {
    tensor_pb2.DTYPE_FLOAT32: torch.float32,
    tensor_pb2.DTYPE_FLOAT16: torch.float16,
    tensor_pb2.DTYPE_BFLOAT16: torch.bfloat16,
}
COLOURS = {"red": 0, "green": 1, "blue": 2}
LIMIT = 64 * 1024 * 1024


def losses(images: torch.Tensor, question: vlm_pb2.Question) -> torch.Tensor:
    """-log of the probability of the right answer about each image [batch, 3, height, width]."""
    named = [channel for name, channel in COLOURS.items() if name in question.question.lower()]
    if len(named) != 1:
        raise ValueError(f"{question.question!r}: ask about one of {', '.join(COLOURS)}")
    mean = images.mean(dim=(2, 3))
    surplus = mean[:, named[0]] - (mean.sum(dim=1) - mean[:, named[0]]) / 2
    logit = 8 * surplus if question.answer.strip().lower() == "yes" else -8 * surplus
    return torch.nn.functional.softplus(-logit)


def answers(loss: torch.Tensor) -> vlm_pb2.ImageAnswers:
    """One image: an entry for each question."""
    rows = [(value, math.exp(-value)) for value in loss.tolist()]
    return vlm_pb2.ImageAnswers(
        answers=[
            vlm_pb2.AnswerResult(loss=value, joint_probability=p, geometric_mean_probability=p)
            for value, p in rows
        ]
    )


class ColourTeacher(vlm_pb2_grpc.VlmServicer):
    async def Describe(self, request: vlm_pb2.VlmDescribeRequest, context: Any) -> Any:
        return vlm_pb2.VlmDescribeResponse(preset="colour", family="external")

    async def Guide(self, request: vlm_pb2.GuideRequest, context: Any) -> vlm_pb2.GuideResponse:
        dtype = DTYPES[request.images.dtype]
        sent = torch.frombuffer(bytearray(request.images.data), dtype=dtype)
        images = sent.reshape(*request.images.shape).float().requires_grad_()
        each = await self._losses(images, request.questions, context)
        weights = torch.tensor(
            [one.weight if one.HasField("weight") else 1.0 for one in request.questions]
        )
        loss = (each * weights / weights.sum()).sum(dim=1).mean()
        # With a margin, answers that are right enough give no gradient.
        margin = request.guard.margin or 1.0
        taught = torch.where(each > -math.log(margin), each, each.detach())
        wanted = (taught * weights / weights.sum()).sum(dim=1).mean()
        (gradient,) = torch.autograd.grad(wanted, images)
        data = gradient.to(dtype).contiguous().view(torch.uint8).numpy().tobytes()
        tensor = tensor_pb2.Tensor(dtype=request.images.dtype, shape=images.shape, data=data)
        return vlm_pb2.GuideResponse(
            loss=loss.item(), images=map(answers, each.detach()), gradient=tensor
        )

    async def Score(self, request: vlm_pb2.ScoreRequest, context: Any) -> vlm_pb2.ScoreResponse:
        rows = []
        for data in request.images:
            pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), dtype=np.float32)
            image = torch.from_numpy(pixels / 127.5 - 1).permute(2, 0, 1)[None]
            rows.append(answers((await self._losses(image, request.questions, context))[0]))
        return vlm_pb2.ScoreResponse(images=rows)

    async def Answer(self, request: vlm_pb2.AnswerRequest, context: Any) -> Any:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "the colour teacher has no words")

    async def _losses(self, images: torch.Tensor, questions: Any, context: Any) -> torch.Tensor:
        """[batch, questions]. Whoever asks what it can't measure is told so."""
        try:
            return torch.stack([losses(images, one) for one in questions], dim=1)
        except ValueError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"questions: {error}")
            raise


async def main(port: int) -> None:
    limits = [("grpc.max_receive_message_length", LIMIT), ("grpc.max_send_message_length", LIMIT)]
    server = grpc.aio.server(options=limits)
    vlm_pb2_grpc.add_VlmServicer_to_server(ColourTeacher(), server)
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    print(f"the colour teacher answers at 127.0.0.1:{bound}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=50060)
    asyncio.run(main(parser.parse_args().port))
