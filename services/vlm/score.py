"""Answers about saved 8-bit pictures, with the model's own image processor. No gradient."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from services.vlm import conversation
from services.vlm.answers import Answer, answers, fetched, losses
from services.vlm.conversation import AskedQuestion
from services.vlm.families.base import VlmFamily
from services.vlm.packing import passes, rows
from services.vlm.visual_prompt import VisualPrompt


@torch.no_grad()
def score(
    vlm: VlmFamily, picture: Image.Image, questions: Sequence[AskedQuestion], postfix: str
) -> list[Answer]:
    """One answer a question about one RGB picture. Raises ``InvalidInput``.

    The picture is processed, and seen by the vision tower, once for every visual prompt.
    """
    variants = list(dict.fromkeys(asked.visual_prompt for asked in questions))
    seen = [vlm.processed(_overlaid(picture, prompt)) for prompt in variants]
    features = torch.cat([vlm.image_features(pixel_values) for pixel_values in seen])
    placeholder = vlm.image_placeholder(seen[0])
    conversations = [vlm.converse(asked, postfix, placeholder) for asked in questions]
    at_once = vlm.preset.conversations_at_once
    places = [variants.index(asked.visual_prompt) for asked in questions]
    queued = [
        losses(vlm, features, part)[1]
        for part in passes(rows(conversations, places, at_once), at_once)
    ]
    return answers(vlm, fetched(queued))


@torch.no_grad()
def answer(
    vlm: VlmFamily,
    picture: Image.Image,
    question: str,
    postfix: str,
    *,
    max_new_tokens: int,
    field: str,
) -> str:
    """The VLM's own words about one RGB picture, decoded greedily. Raises ``InvalidInput``."""
    for name, text in ((field, question), ("question_postfix", postfix)):
        conversation.refuse_control_tokens(vlm.tokenizer, text, name)
    pixel_values = vlm.processed(picture)
    prompt = conversation.prompt(
        vlm.preset.chat,
        vlm.image_placeholder(pixel_values),
        conversation.with_postfix(question, postfix),
    )
    return vlm.generate(pixel_values, prompt, max_new_tokens)


def _overlaid(picture: Image.Image, visual_prompt: VisualPrompt | None) -> Image.Image:
    if visual_prompt is None:
        return picture
    pixels_HWC = torch.from_numpy(np.array(picture))
    image = pixels_HWC.permute(2, 0, 1)[None] / 127.5 - 1
    overlaid_CHW = ((visual_prompt.over(image)[0] + 1) * 127.5).round().to(torch.uint8)
    return Image.fromarray(overlaid_CHW.permute(1, 2, 0).numpy())
