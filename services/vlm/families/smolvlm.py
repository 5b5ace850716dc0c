"""SmolVLM2: SigLIP tower, pixel shuffle, SmolLM2 (Marafioti et al., 2025, arXiv 2504.05299)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from PIL import Image

from services.vlm.families import siglip
from services.vlm.families.base import VlmFamily
from services.vlm.preprocess import resize

_BOUNDARY = "<fake_token_around_image>"
_WHOLE = "<global-img>"
_IMAGE = "<image>"


class SmolVlm(VlmFamily):
    """One image per conversation, not split into tiles. ``pixel_values`` [batch, 3, side, side]."""

    model_class = "SmolVLMForConditionalGeneration"
    image_processor_class = "SmolVLMImageProcessorPil"

    def pixel_values(self, unit_BCHW: torch.Tensor) -> torch.Tensor:
        height, width = unit_BCHW.shape[-2:]
        side = self.image_processor.max_image_size["longest_edge"]
        # In two steps, as the processor: first to its longest edge, then to the tower's square.
        large = resize(unit_BCHW, self._large_size(height, width), "lanczos")
        return self.normalize(resize(large, (side, side), "lanczos"))

    def _large_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) with the longer side at the processor's own, the other one even."""
        longest = self.image_processor.size["longest_edge"]
        aspect = width / height
        if width >= height:
            shorter = int(longest / aspect)
            return shorter + shorter % 2, longest
        shorter = int(longest * aspect)
        return longest, shorter + shorter % 2

    def processed(self, picture: Image.Image) -> torch.Tensor:
        batch = self.image_processor(picture, do_image_splitting=False, return_tensors="pt")
        pixel_values: torch.Tensor = batch["pixel_values"][0]
        return pixel_values.to(self.device)

    def image_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        model = self.model.model
        hidden = siglip.hidden_states(model.vision_model, pixel_values.to(model.dtype))
        features: torch.Tensor = model.connector(hidden)
        return features

    @property
    def text_model(self) -> Any:
        return self.model.model.text_model

    def image_placeholder(self, pixel_values: torch.Tensor) -> str:  # noqa: ARG002
        tokens = self.model.model.image_seq_len
        return f"{_BOUNDARY}{_WHOLE}{_IMAGE * tokens}{_BOUNDARY}"

    def vision_inputs(self, pixel_values: torch.Tensor) -> Mapping[str, torch.Tensor]:
        return super().vision_inputs(pixel_values.unsqueeze(1))
