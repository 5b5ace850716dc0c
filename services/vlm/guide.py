"""image → loss of the right answers → d loss / d image."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from services.common.errors import NonFinite
from services.common.presets import DtypeName
from services.common.transfer import fetch, upload
from services.vlm.answers import Answer, Tokens, answers, fetched, losses
from services.vlm.conversation import AskedQuestion
from services.vlm.families.base import VlmFamily
from services.vlm.packing import Row, passes, rows
from services.vlm.preprocess import clamp
from services.vlm.visual_prompt import VisualPrompt


@dataclass(frozen=True)
class Guard:
    """At which images the gradient is taken, and which answers give one.

    ``margin``: an answer whose probability exp(-loss) has reached it gives no more gradient; its
    term of the loss is max(0, loss + ln margin), a hinge as in FlowBP and LeapAlign. ``None``:
    every answer gives one.

    ``worst_case``: the gradient is taken at the images moved by this root mean square to where
    their answers are worse, each by itself (after RSA-FT: a picture whose answers are right only
    at that exact point goes on learning). 0: at the images themselves.
    """

    margin: float | None = None
    worst_case: float = 0.0


OFF = Guard()

#: Of a pixel's gradient, in parts of an image's largest value: below, its root is not taken.
_SHORTEST = 1e-12

#: The loss is multiplied by this before the backward pass, and the gradient divided by it
#: afterwards: in float16 the small gradients of many or certain answers would become zeros. Powers
#: of two; the largest that doesn't overflow is used. Other dtypes need none.
_SCALES: Mapping[DtypeName, tuple[float, ...]] = {"float16": (2.0**14, 2.0**7, 1.0)}


@dataclass(frozen=True)
class Guidance:
    """``answers`` has a row for each image, in it an entry for each question.

    ``loss`` is the mean of theirs, over questions by their weights. Both are those of the images
    themselves. ``gradient`` is d loss / d images, as changed by the guard, in the images' dtype, on
    the host.
    """

    loss: float
    answers: Sequence[Sequence[Answer]]
    gradient: torch.Tensor


def guide(
    vlm: VlmFamily,
    images: torch.Tensor,
    questions: Sequence[AskedQuestion],
    postfix: str,
    guard: Guard = OFF,
) -> Guidance:
    """The VLM's answers about ``images`` [batch, 3, height, width] in [-1, 1], on its device.

    The vision tower runs once for every image and visual prompt, whatever the number of questions;
    twice with ``guard.worst_case``. Values beyond [-1, 1] are clamped, with a gradient that pulls
    them back. Waits for the device once, at the end; in float16 once more for each scale of the
    loss that is too large. Raises ``NonFinite`` for a loss or gradient that is not a number,
    ``InvalidInput`` for a question that can't be asked.
    """
    (guidance,) = guide_together(vlm, [images], questions, postfix, guard)
    return guidance


def guide_together(
    vlm: VlmFamily,
    calls: Sequence[torch.Tensor],
    questions: Sequence[AskedQuestion],
    postfix: str,
    guard: Guard = OFF,
) -> list[Guidance]:
    """``guide`` for each of several calls' images, of one size and dtype, in the same passes
    through the model. Raises if any would."""
    # The largest scale of the loss at which nothing overflows in the backward pass.
    *larger, last = _SCALES.get(vlm.preset.dtype, (1.0,))
    for scale in larger:
        with contextlib.suppress(NonFinite):
            return _guided(vlm, calls, questions, postfix, guard, scale)
    return _guided(vlm, calls, questions, postfix, guard, last)


def answer_loss(
    vlm: VlmFamily, images: torch.Tensor, questions: Sequence[AskedQuestion], postfix: str
) -> torch.Tensor:
    """The loss of ``guide`` as one graph from ``images``, for use in one process."""
    return guarded_loss(vlm, images, questions, postfix, OFF)[0]


def guarded_loss(
    vlm: VlmFamily,
    images: torch.Tensor,
    questions: Sequence[AskedQuestion],
    postfix: str,
    guard: Guard,
) -> tuple[torch.Tensor, Sequence[Sequence[Answer]]]:
    """For use in one process: the loss whose gradient ``guide`` takes, as one graph from
    ``images``; and the answers."""
    plain = None
    if guard.worst_case:
        plain = guide(vlm, images, questions, postfix)
        gradient = plain.gradient.to(images.device)
        moved = _moved(images.detach(), gradient, guard.worst_case)
        images = images + (moved - images).detach()
    everything = len(images) * len(questions)
    features, parts = _prepare(vlm, images, questions, postfix, everything)
    each, tokens = losses(vlm, features, parts)
    shares = _shares(questions, [len(images)])[tokens.numbers]
    taught = (_beyond(each, guard.margin) * upload(shares, each.device)).sum()
    if plain is not None:
        return taught, plain.answers
    return taught, _by_image(answers(vlm, fetched([tokens])), len(questions))


def _guided(
    vlm: VlmFamily,
    calls: Sequence[torch.Tensor],
    questions: Sequence[AskedQuestion],
    postfix: str,
    guard: Guard,
    scale: float,
) -> list[Guidance]:
    together = torch.cat(list(calls)) if len(calls) > 1 else calls[0]
    counts = tuple(len(call) for call in calls)
    shares = _shares(questions, counts)

    def work(images: torch.Tensor) -> tuple[list[torch.Tensor], list[_Queued]]:
        queued = _queue_all(vlm, images, questions, postfix, guard, shares, scale)
        return _tensors(queued), queued

    key = (tuple(questions), postfix, guard, counts, scale)
    tensors, queued = vlm.replays(key, work, together)
    plain, *worst = _filled(queued, fetch(tensors))
    taught = worst[0] if worst else plain
    answered = _by_image(answers(vlm, plain.tokens), len(questions))
    guidances = []
    begin = 0
    for call in calls:
        part = slice(begin, begin + len(call))
        loss = _mean(answered[part], questions)
        is_finite = all(bool(queued.is_finite[part].all()) for queued in (plain, taught))
        if not (is_finite and math.isfinite(loss)):
            raise NonFinite(f"the loss ({loss}) or its gradient is not finite")
        guidances.append(Guidance(loss, answered[part], taught.gradient[part]))
        begin += len(call)
    return guidances


@dataclass(frozen=True)
class _Queued:
    """What the device is to compute. ``is_finite`` [images]: whether an image's gradient and the
    losses of its answers are."""

    gradient: torch.Tensor
    is_finite: torch.Tensor
    tokens: Sequence[Tokens]


def _queue_all(
    vlm: VlmFamily,
    images: torch.Tensor,
    questions: Sequence[AskedQuestion],
    postfix: str,
    guard: Guard,
    shares: torch.Tensor,
    scale: float,
) -> list[_Queued]:
    """What the answers are read from, and, if that is something else, the worst case's."""
    if not guard.worst_case:
        return [_queue(vlm, images, questions, postfix, shares, guard.margin, scale)]
    plain = _queue(vlm, images, questions, postfix, shares, None, scale)
    worst = _moved(images, plain.gradient, guard.worst_case)
    taught = _queue(vlm, worst, questions, postfix, shares, guard.margin, scale)
    return [plain, replace(taught, gradient=taught.gradient.to(images.dtype))]


def _queue(
    vlm: VlmFamily,
    images: torch.Tensor,
    questions: Sequence[AskedQuestion],
    postfix: str,
    shares: torch.Tensor,
    margin: float | None,
    scale: float,
) -> _Queued:
    """Loss and gradient of all images, without waiting for the device."""
    leaf = images.detach().requires_grad_()
    at_once = vlm.preset.conversations_at_once
    features, parts = _prepare(vlm, leaf, questions, postfix, at_once)
    # The text model's passes end at a copy of the features; their gradients add up there, and
    # the vision tower's backward pass runs once.
    cut = features.detach().requires_grad_()
    read: list[Tokens] = []
    for part in passes(parts, at_once):
        part_losses, tokens = losses(vlm, cut, part)
        share = upload(shares[tokens.numbers], cut.device)
        torch.autograd.backward((_beyond(part_losses, margin) * share).sum() * scale)
        read.append(tokens)
    torch.autograd.backward(features, cut.grad)
    assert leaf.grad is not None
    gradient = leaf.grad / scale
    return _Queued(gradient, torch.isfinite(gradient).flatten(1).all(1), read)


def _tensors(queued: Sequence[_Queued]) -> list[torch.Tensor]:
    tensors = []
    for one in queued:
        tensors += [one.gradient, one.is_finite]
        tensors += [each for tokens in one.tokens for each in (tokens.losses, tokens.predicted)]
    return tensors


def _filled(queued: Sequence[_Queued], tensors: Sequence[torch.Tensor]) -> list[_Queued]:
    """The same with other tensors, in the order of ``_tensors``."""
    each = iter(tensors)
    return [
        _Queued(
            next(each),
            next(each),
            [replace(tokens, losses=next(each), predicted=next(each)) for tokens in one.tokens],
        )
        for one in queued
    ]


def _by_image(read: Sequence[Answer], per_image: int) -> list[Sequence[Answer]]:
    return [read[i : i + per_image] for i in range(0, len(read), per_image)]


def _mean(answered: Sequence[Sequence[Answer]], questions: Sequence[AskedQuestion]) -> float:
    """The mean loss over images, and over questions by their weights."""
    weighted = [
        asked.weight * answer.loss
        for row in answered
        for asked, answer in zip(questions, row, strict=True)
    ]
    return sum(weighted) / (sum(asked.weight for asked in questions) * len(answered))


def _shares(questions: Sequence[AskedQuestion], calls: Sequence[int]) -> torch.Tensor:
    """What the loss of each conversation [images questions] counts in that of its call; ``calls``
    are the numbers of their images. On the host."""
    total = sum(asked.weight for asked in questions)
    return torch.tensor(
        [
            asked.weight / (total * images)
            for images in calls
            for _ in range(images)
            for asked in questions
        ]
    )


def _beyond(losses_N: torch.Tensor, margin: float | None) -> torch.Tensor:
    """The part of each loss that exceeds the loss of an answer with probability ``margin``."""
    return losses_N if margin is None else torch.relu(losses_N + math.log(margin))


def _moved(images: torch.Tensor, gradient: torch.Tensor, distance: float) -> torch.Tensor:
    """Each image moved by this distance, in root mean square, towards a larger loss; float32.

    A pixel moves along its gradient, by a length in proportion to the root of the gradient's: no
    move with the same sum of cubed lengths raises the loss more, to first order. With squared
    lengths, the same move counts for less the larger the coloured area is, so LoRAs paint more.
    """
    least = torch.finfo(torch.float32).tiny
    # Divided by the largest value first: the squares of a certain answer's gradient would
    # underflow.
    largest = gradient.float().abs().amax((1, 2, 3), keepdim=True)
    scaled = gradient.float() / largest.clamp_min(least)
    lengths_B1HW = scaled.square().sum(1, keepdim=True).sqrt()
    direction = scaled / lengths_B1HW.clamp_min(_SHORTEST).sqrt()
    size = direction.square().mean((1, 2, 3), keepdim=True).sqrt()
    return images.float().clamp(-1, 1) + distance * direction / size.clamp_min(least)


def _prepare(
    vlm: VlmFamily,
    images: torch.Tensor,
    questions: Sequence[AskedQuestion],
    postfix: str,
    at_once: int,
) -> tuple[torch.Tensor, list[Row]]:
    """Features of each image with each visual prompt, and the rows of all conversations [images
    questions]."""
    shown = clamp(images.float(), -1.0, 1.0)
    variants: list[VisualPrompt | None] = list(
        dict.fromkeys(asked.visual_prompt for asked in questions)
    )
    overlaid = [shown if prompt is None else prompt.over(shown) for prompt in variants]
    pixel_values = vlm.pixel_values((torch.cat(overlaid) + 1) / 2)
    features = vlm.image_features(pixel_values)
    placeholder = vlm.image_placeholder(pixel_values[:1])
    conversations = [vlm.converse(asked, postfix, placeholder) for asked in questions]
    seen = [
        variants.index(asked.visual_prompt) * len(images) + image
        for image in range(len(images))
        for asked in questions
    ]
    return features, rows(conversations * len(images), seen, at_once)
