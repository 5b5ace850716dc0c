"""image → loss of the right answers → d loss / d image."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from services.common.errors import NonFinite
from services.common.presets import DtypeName
from services.vlm.answers import Answer, losses, passes
from services.vlm.conversation import AskedQuestion, Conversation
from services.vlm.families.base import VlmFamily
from services.vlm.preprocess import clamp
from services.vlm.visual_prompt import VisualPrompt


@dataclass(frozen=True)
class Guard:
    """At which images the gradient is taken, and which answers give one.

    ``margin``: an answer whose probability exp(-loss) has reached it gives no more gradient; its
    term of the loss is max(0, loss + ln margin), a hinge as in FlowBP and LeapAlign. ``None``:
    every answer gives one.

    ``worst_case``: the gradient is taken at the images moved by this root mean square along d loss
    / d image, each as a whole (after RSA-FT: a picture whose answers are right only at that exact
    point goes on learning). 0: at the images themselves.
    """

    margin: float | None = None
    worst_case: float = 0.0


OFF = Guard()

#: The loss is multiplied by this before the backward pass, and the gradient divided by it
#: afterwards: in float16 the small gradients of many or certain answers would become zeros. Powers
#: of two; the largest that doesn't overflow is used. Other dtypes need none.
_SCALES: Mapping[DtypeName, tuple[float, ...]] = {"float16": (2.0**14, 2.0**7, 1.0)}


@dataclass(frozen=True)
class Guidance:
    """``answers`` has a row for each image, in it an entry for each question.

    ``loss`` is the mean of theirs, over questions by their weights. Both are those of the images
    themselves. ``gradient`` is d loss / d images, as changed by the guard, in the images' dtype.
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
    them back. Raises ``NonFinite`` for a loss or gradient that is not a number, ``InvalidInput``
    for a question that can't be asked.
    """
    if not guard.worst_case:
        return _guide(vlm, images, questions, postfix, guard.margin)
    plain = _guide(vlm, images, questions, postfix, None)
    worst = _moved(images, plain.gradient, guard.worst_case)
    taught = _guide(vlm, worst, questions, postfix, guard.margin)
    return Guidance(plain.loss, plain.answers, taught.gradient.to(images.dtype))


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
        plain = _guide(vlm, images, questions, postfix, None)
        moved = _moved(images.detach(), plain.gradient, guard.worst_case)
        images = images + (moved - images).detach()
    features, conversations = _prepare(vlm, images, questions, postfix)
    each, answers = losses(vlm, features, conversations)
    shares = _shares(questions, len(images), each.device)
    taught = (_beyond(each, guard.margin) * shares).sum() / shares.sum()
    return taught, _rows(answers, len(questions)) if plain is None else plain.answers


def _guide(
    vlm: VlmFamily,
    images: torch.Tensor,
    questions: Sequence[AskedQuestion],
    postfix: str,
    margin: float | None,
) -> Guidance:
    """Uses the first scale of the loss at which nothing overflows in the backward pass."""
    *larger, last = _SCALES.get(vlm.preset.dtype, (1.0,))
    for scale in larger:
        with contextlib.suppress(NonFinite):
            return _guide_scaled(vlm, images, questions, postfix, margin, scale)
    return _guide_scaled(vlm, images, questions, postfix, margin, last)


def _guide_scaled(
    vlm: VlmFamily,
    images: torch.Tensor,
    questions: Sequence[AskedQuestion],
    postfix: str,
    margin: float | None,
    scale: float,
) -> Guidance:
    leaf = images.detach().requires_grad_()
    features, conversations = _prepare(vlm, leaf, questions, postfix)
    shares = _shares(questions, len(images), features.device)
    total = float(shares.sum())
    # The text model's passes end at a copy of the features; their gradients add up there, and
    # the vision tower's backward pass runs once.
    cut = features.detach().requires_grad_()
    answers: list[Answer] = []
    for part in passes(vlm, conversations):
        part_losses, part_answers = losses(vlm, cut[part], conversations[part])
        taught = _beyond(part_losses, margin) * shares[part]
        torch.autograd.backward(taught.sum() / total * scale)
        answers += part_answers
    torch.autograd.backward(features, cut.grad)
    weights = [asked.weight for asked in questions] * len(images)
    loss = sum(w * answer.loss for w, answer in zip(weights, answers, strict=True)) / sum(weights)
    gradient = leaf.grad
    assert gradient is not None
    gradient = gradient / scale
    if not (torch.isfinite(gradient).all() and math.isfinite(loss)):
        raise NonFinite(f"the loss ({loss}) or its gradient is not finite")
    return Guidance(loss=loss, answers=_rows(answers, len(questions)), gradient=gradient)


def _rows(answers: Sequence[Answer], per_image: int) -> list[Sequence[Answer]]:
    return [answers[i : i + per_image] for i in range(0, len(answers), per_image)]


def _shares(questions: Sequence[AskedQuestion], images: int, device: torch.device) -> torch.Tensor:
    """The weight of each conversation [images questions]."""
    return torch.tensor([asked.weight for asked in questions] * images, device=device)


def _beyond(losses_N: torch.Tensor, margin: float | None) -> torch.Tensor:
    """The part of each loss that exceeds the loss of an answer with probability ``margin``."""
    return losses_N if margin is None else torch.relu(losses_N + math.log(margin))


def _moved(images: torch.Tensor, gradient: torch.Tensor, distance: float) -> torch.Tensor:
    """Each image moved by this distance, in root mean square, along its own gradient; float32."""
    least = torch.finfo(torch.float32).tiny
    # Divided by the largest value first: the squares of a certain answer's gradient would
    # underflow.
    largest = gradient.float().abs().amax((1, 2, 3), keepdim=True)
    direction = gradient.float() / largest.clamp_min(least)
    size = direction.square().mean((1, 2, 3), keepdim=True).sqrt()
    return images.float().clamp(-1, 1) + distance * direction / size.clamp_min(least)


def _prepare(
    vlm: VlmFamily, images: torch.Tensor, questions: Sequence[AskedQuestion], postfix: str
) -> tuple[torch.Tensor, list[Conversation]]:
    """Features and conversation of each (image, question), images outermost."""
    shown = clamp(images.float(), -1.0, 1.0)
    variants: list[VisualPrompt | None] = list(
        dict.fromkeys(asked.visual_prompt for asked in questions)
    )
    overlaid = [shown if prompt is None else prompt.over(shown) for prompt in variants]
    pixel_values = vlm.pixel_values((torch.cat(overlaid) + 1) / 2)
    features = vlm.image_features(pixel_values)
    placeholder = vlm.image_placeholder(pixel_values[:1])
    conversations = [vlm.converse(asked, postfix, placeholder) for asked in questions]
    variant_of = torch.tensor([variants.index(asked.visual_prompt) for asked in questions])
    # [variant, image, …] → [image, question, …] → one row for each pair.
    features = features.view(len(variants), len(images), *features.shape[1:])
    features = features[variant_of].transpose(0, 1).flatten(0, 1)
    return features, conversations * len(images)
