"""image → loss of the right answers → d loss / d image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from services.common.errors import NonFinite
from services.vlm.answers import Answer, losses, passes
from services.vlm.conversation import AskedQuestion, Conversation
from services.vlm.families.base import VlmFamily
from services.vlm.preprocess import clamp
from services.vlm.visual_prompt import VisualPrompt


@dataclass(frozen=True)
class Guidance:
    """``answers`` has a row for each image, in it an entry for each question.

    ``loss`` is the mean of theirs; ``gradient`` is d loss / d images, in the images' dtype.
    """

    loss: float
    answers: Sequence[Sequence[Answer]]
    gradient: torch.Tensor


def guide(
    vlm: VlmFamily, images: torch.Tensor, questions: Sequence[AskedQuestion], postfix: str
) -> Guidance:
    """What the VLM says of ``images`` [batch, 3, height, width] in [-1, 1], on its device.

    The vision tower runs once for every image and visual prompt, whatever the number of
    questions. Values beyond [-1, 1] count as the limit, with a gradient that pulls them back.
    Raises ``NonFinite`` for a loss or gradient that is not a number, ``InvalidInput`` for a
    question that can't be put.
    """
    leaf = images.detach().requires_grad_()
    features, conversations = _prepare(vlm, leaf, questions, postfix)
    # The text model's passes end at a copy of the features; their gradients add up there, and
    # the vision tower's backward pass runs once.
    cut = features.detach().requires_grad_()
    answers: list[Answer] = []
    for part in passes(vlm, conversations):
        part_losses, part_answers = losses(vlm, cut[part], conversations[part])
        torch.autograd.backward(part_losses.sum() / len(conversations))
        answers += part_answers
    torch.autograd.backward(features, cut.grad)
    loss = sum(answer.loss for answer in answers) / len(answers)
    gradient = leaf.grad
    assert gradient is not None
    if not (torch.isfinite(gradient).all() and loss == loss and abs(loss) != float("inf")):
        raise NonFinite(f"the loss ({loss}) or its gradient is not finite")
    per_image = len(questions)
    return Guidance(
        loss=loss,
        answers=[answers[i : i + per_image] for i in range(0, len(answers), per_image)],
        gradient=gradient,
    )


def answer_loss(
    vlm: VlmFamily, images: torch.Tensor, questions: Sequence[AskedQuestion], postfix: str
) -> torch.Tensor:
    """The loss of ``guide`` as one graph from ``images``, for use in one process."""
    features, conversations = _prepare(vlm, images, questions, postfix)
    return losses(vlm, features, conversations)[0].mean()


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
