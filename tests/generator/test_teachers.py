"""Several VLMs teach as their weighted mean."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest
import torch

from dualprocess.v1 import tensor_pb2, vlm_pb2
from services.common import torch_tensors
from services.common.errors import BadGradient
from services.generator.guide import Guidance, Guide
from services.generator.teachers import averaged

IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def wants(level: float, *, pause: float = 0.0) -> Guide:
    async def guide(message: tensor_pb2.Tensor) -> Guidance:
        await asyncio.sleep(pause)
        images = torch_tensors.from_proto(message, name="images").float().requires_grad_()
        loss = (images - level).square().mean()
        (gradient,) = torch.autograd.grad(loss, images)
        answer = vlm_pb2.AnswerResult(loss=loss.item(), joint_probability=(-loss).exp().item())
        return Guidance(
            loss=loss.item(),
            answers=[[answer] for _ in images],
            gradient=torch_tensors.to_proto(gradient.to(torch_tensors.DTYPES[message.dtype])),
            device_seconds=pause,
        )

    return guide


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
async def test_loss_answers_and_gradient_are_weighted_means(dtype: torch.dtype) -> None:
    message = torch_tensors.to_proto(IMAGES.to(dtype))
    guides = [wants(1.0), wants(-0.5)]
    single = [await guide(message) for guide in guides]
    both = await averaged(guides, [3.0, 1.0])(message)
    assert both.loss == pytest.approx(0.75 * single[0].loss + 0.25 * single[1].loss)
    joint = [guidance.answers[1][0].joint_probability for guidance in single]
    assert both.answers[1][0].joint_probability == pytest.approx(0.75 * joint[0] + 0.25 * joint[1])
    got = torch_tensors.from_proto(both.gradient, name="gradient")
    wanted = IMAGES.to(dtype).float() - (0.75 * 1.0 - 0.25 * 0.5)
    assert got.dtype == dtype
    torch.testing.assert_close(got.float(), 2 * wanted / IMAGES.numel(), rtol=2e-2, atol=1e-4)


async def test_they_are_asked_at_once() -> None:
    begin = time.monotonic()
    guides = [wants(1.0, pause=0.3), wants(0.0, pause=0.3)]
    both = await averaged(guides, [1.0, 1.0])(torch_tensors.to_proto(IMAGES))
    assert time.monotonic() - begin < 0.55
    assert both.device_seconds == 0.3


async def test_one_that_refuses_ends_the_step() -> None:
    async def refuses(message: tensor_pb2.Tensor) -> Guidance:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await averaged([wants(1.0, pause=5), refuses], [1.0, 1.0])(torch_tensors.to_proto(IMAGES))


@pytest.mark.parametrize("shape", [(2, 3, 1, 1), (2, 3, 4, 4), (1, 3, 8, 8)])
async def test_a_gradient_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    async def odd(message: tensor_pb2.Tensor) -> Guidance:
        whole = await wants(1.0)(message)
        return replace(whole, gradient=torch_tensors.to_proto(torch.zeros(shape)))

    with pytest.raises(BadGradient, match="gradient"):
        await averaged([wants(1.0), odd], [1.0, 1.0])(torch_tensors.to_proto(IMAGES))
