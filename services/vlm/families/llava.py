"""LLaVA 1.5: CLIP tower, MLP, Vicuna (Liu et al., 2024, arXiv 2310.03744)."""

from __future__ import annotations

import torch
from PIL import Image

from services.vlm.families.base import VlmFamily
from services.vlm.preprocess import resize


class Llava(VlmFamily):
    """``pixel_values`` [batch, 3, side, side]: the middle of the image, as CLIP crops it."""

    model_class = "LlavaForConditionalGeneration"

    def pixel_values(self, unit_BCHW: torch.Tensor) -> torch.Tensor:
        height, width = unit_BCHW.shape[-2:]
        resized = resize(unit_BCHW, self._target_size(height, width), "bicubic")
        crop = self.image_processor.crop_size
        top = (resized.shape[-2] - crop["height"]) // 2
        left = (resized.shape[-1] - crop["width"]) // 2
        return self.normalize(resized[..., top : top + crop["height"], left : left + crop["width"]])

    def _target_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) with the shorter side at the processor's own."""
        shortest = self.image_processor.size["shortest_edge"]
        if width <= height:
            return int(shortest * height / width), shortest
        return shortest, int(shortest * width / height)

    def processed(self, picture: Image.Image) -> torch.Tensor:
        pixel_values: torch.Tensor = self.image_processor(picture, return_tensors="pt")[
            "pixel_values"
        ]
        return pixel_values.to(self.device)

    def image_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        model = self.model.model
        return torch.stack(
            list(model.get_image_features(pixel_values.to(model.dtype)).pooler_output)
        )

    def image_placeholder(self, pixel_values: torch.Tensor) -> str:
        patch: int = self.model.config.vision_config.patch_size
        height, width = pixel_values.shape[-2:]
        return "<image>" * ((height // patch) * (width // patch))
