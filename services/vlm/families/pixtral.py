"""Pixtral 12B: a vision tower for any aspect ratio, with tokens at the ends of rows (Agrawal et
al., 2024, arXiv 2410.07073)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from PIL import Image

from services.vlm.families.base import VlmFamily
from services.vlm.preprocess import resize


class Pixtral(VlmFamily):
    """``pixel_values`` [batch, 3, h, w], each side a whole number of patches."""

    model_class = "LlavaForConditionalGeneration"
    image_processor_class = "PixtralImageProcessorPil"

    def pixel_values(self, unit_BCHW: torch.Tensor) -> torch.Tensor:
        height, width = unit_BCHW.shape[-2:]
        return self.normalize(resize(unit_BCHW, self._target_size(height, width), "bicubic"))

    def _target_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width): the longer side is limited, then each is rounded up to whole patches."""
        ratio = max(height, width) / self.image_processor.size["longest_edge"]
        if ratio > 1:
            height, width = math.floor(height / ratio), math.floor(width / ratio)
        patch = self._patch
        return math.ceil(height / patch) * patch, math.ceil(width / patch) * patch

    @property
    def _patch(self) -> int:
        patch: int = self.model.config.vision_config.patch_size
        return patch

    def processed(self, picture: Image.Image) -> torch.Tensor:
        pixel_values: torch.Tensor = self.image_processor(picture, return_tensors="pt")[
            "pixel_values"
        ]
        return pixel_values.to(self.device)

    def image_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        # Without sizes it takes all images as large as the tensor, and gives one row for all.
        features: torch.Tensor
        (features,) = self.model.model.get_image_features(
            pixel_values.to(self.model.dtype)
        ).pooler_output
        return features.view(len(pixel_values), -1, features.shape[-1])

    def vision_inputs(self, pixel_values: torch.Tensor) -> Mapping[str, torch.Tensor]:
        height, width = pixel_values.shape[-2:]
        sizes = torch.tensor([[height, width]] * len(pixel_values), device=self.device)
        return {**super().vision_inputs(pixel_values), "image_sizes": sizes}

    def image_placeholder(self, pixel_values: torch.Tensor) -> str:
        height, width = pixel_values.shape[-2:]
        row = "[IMG]" * (width // self._patch)
        return "[IMG_BREAK]".join([row] * (height // self._patch)) + "[IMG_END]"
