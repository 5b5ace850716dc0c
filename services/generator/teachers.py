"""The VLMs of one job as one guide: called at the same time, averaged by weight."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from dualprocess.v1 import generator_pb2 as pb
from dualprocess.v1 import tensor_pb2, vlm_pb2
from services.common import torch_tensors
from services.common.credentials import Credentials
from services.common.replicas import Replicas
from services.generator.guide import Guidance, Guide, VlmGuide, gradient_of


@contextlib.asynccontextmanager
async def teachers(
    spec: pb.OptimizeSpec,
    waiting: Callable[[str], Awaitable[None]],
    warn: Callable[[str], Awaitable[None]],
    credentials: Credentials,
) -> AsyncIterator[Guide]:
    """The guide of ``spec.vlms``, under the spec's guard. ``waiting`` is called once per outage,
    with the VLM that is waited for; ``warn`` when a call failed and was made again."""
    guard = vlm_pb2.GuideGuard(margin=spec.guard.margin, worst_case=spec.guard.worst_case)
    async with contextlib.AsyncExitStack() as channels:
        guides = [
            VlmGuide(
                await channels.enter_async_context(
                    Replicas(vlm.target, credentials, name=f"{vlm.preset} at {vlm.target}")
                ),
                spec.questions,
                spec.question_postfix,
                guard,
                name=f"{vlm.preset} at {vlm.target}",
                waiting=waiting,
                warn=warn,
            )
            for vlm in spec.vlms
        ]
        yield averaged(guides, [vlm.weight for vlm in spec.vlms])


def averaged(guides: Sequence[Guide], weights: Sequence[float]) -> Guide:
    """Loss = sum of w_i loss_i / sum of w_i, and so are gradient and probabilities."""
    if len(guides) == 1:
        return guides[0]
    shares = [weight / sum(weights) for weight in weights]

    async def guide(images: tensor_pb2.Tensor) -> Guidance:
        asked = [asyncio.ensure_future(one(images)) for one in guides]
        try:
            guidances = await asyncio.gather(*asked)
        finally:
            # A frame that holds what it fails with is a cycle, and keeps the step's graph.
            while asked:
                asked.pop().cancel()
        return await asyncio.to_thread(_average, guidances, shares, images.shape)

    return guide


def _average(
    guidances: Sequence[Guidance], shares: Sequence[float], images: Sequence[int]
) -> Guidance:
    gradients = [gradient_of(guidance, images) for guidance in guidances]
    mean = sum(gradient.float() * share for gradient, share in zip(gradients, shares, strict=True))
    assert not isinstance(mean, int)
    rows = zip(*(guidance.answers for guidance in guidances), strict=True)
    return Guidance(
        loss=_weighted([guidance.loss for guidance in guidances], shares),
        answers=[
            [_mean_answer(column, shares) for column in zip(*row, strict=True)] for row in rows
        ],
        gradient=torch_tensors.to_proto(mean.to(gradients[0].dtype)),
        # They work at the same time, so the slowest one decides.
        device_seconds=max(guidance.device_seconds for guidance in guidances),
    )


def _mean_answer(
    answers: Sequence[vlm_pb2.AnswerResult], shares: Sequence[float]
) -> vlm_pb2.AnswerResult:
    return vlm_pb2.AnswerResult(
        loss=_weighted([answer.loss for answer in answers], shares),
        joint_probability=_weighted([answer.joint_probability for answer in answers], shares),
        geometric_mean_probability=_weighted(
            [answer.geometric_mean_probability for answer in answers], shares
        ),
    )


def _weighted(values: Sequence[float], shares: Sequence[float]) -> float:
    return sum(value * share for value, share in zip(values, shares, strict=True))
