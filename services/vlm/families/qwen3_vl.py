"""Qwen3-VL: the tower's deeper features enter the text model's first layers (DeepStack, Meng et
al., 2024, arXiv 2406.04334)."""

from __future__ import annotations

from typing import Any

import torch

from services.vlm.families.qwen_vl import QwenVl


class Qwen3Vl(QwenVl):
    """Patches of 16 pixels, merged two by two. A feature's width is the text model's, times one
    more than the layers it enters."""

    model_class = "Qwen3VLForConditionalGeneration"

    def joined_features(self, vision: Any) -> torch.Tensor:
        deeper = [torch.cat(images) for images in vision.deepstack_features]
        return torch.cat([torch.cat(vision.pooler_output), *deeper], dim=-1)
