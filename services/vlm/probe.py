"""The computation of a VLM's self-test."""

from __future__ import annotations

import torch
from PIL import Image

from services.vlm.conversation import AskedQuestion
from services.vlm.families.base import VlmFamily
from services.vlm.score import score

_SIDE = 224


def probe(vlm: VlmFamily) -> torch.Tensor:
    """Loss and probability of an answer about a red picture, which need the whole model: [2],
    float32, the same each time."""
    picture = Image.new("RGB", (_SIDE, _SIDE), "red")
    (answer,) = score(vlm, picture, [AskedQuestion("Is it red?", "Yes", None, 1.0, "probe")], "")
    return torch.tensor([answer.loss, answer.joint_probability])
