"""A guide without a VLM: it wants bright images. Loss = mean squared distance from white."""

from __future__ import annotations

import asyncio

import torch

from dualprocess.v1 import tensor_pb2, vlm_pb2
from services.common import torch_tensors
from services.generator.guide import Guidance


def judge(message: tensor_pb2.Tensor) -> Guidance:
    images = torch_tensors.from_proto(message, name="images").requires_grad_()
    loss = (images - 1).square().mean()
    (gradient,) = torch.autograd.grad(loss, images)
    answer = vlm_pb2.AnswerResult(
        loss=loss.item(),
        joint_probability=(-loss).exp().item(),
        geometric_mean_probability=(-loss).exp().item(),
        predicted="Yes",
    )
    return Guidance(
        loss=loss.item(),
        answers=[[answer] for _ in images],
        gradient=torch_tensors.to_proto(gradient),
        device_seconds=0.0,
    )


async def bright(message: tensor_pb2.Tensor) -> Guidance:
    # Other jobs get their turn here, as they do while a real VLM works.
    await asyncio.sleep(0.005)
    return judge(message)
