"""Gemma 3: SigLIP tower, pooled to a fixed number of tokens (arXiv 2503.19786)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from PIL import Image

from services.vlm.families.base import LayerKind, VlmFamily
from services.vlm.preprocess import resize


class Gemma3(VlmFamily):
    """One image per conversation, without pan and scan. ``pixel_values`` [batch, 3, side, side]."""

    model_class = "Gemma3ForConditionalGeneration"

    def pixel_values(self, unit_BCHW: torch.Tensor) -> torch.Tensor:
        size = self.image_processor.size
        return self.normalize(resize(unit_BCHW, (size["height"], size["width"]), "bilinear"))

    def processed(self, picture: Image.Image) -> torch.Tensor:
        batch = self.image_processor(picture, do_pan_and_scan=False, return_tensors="pt")
        pixel_values: torch.Tensor = batch["pixel_values"]
        return pixel_values.to(self.device)

    def image_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        model = self.model.model
        features: torch.Tensor = model.get_image_features(
            pixel_values.to(model.dtype)
        ).pooler_output
        return features

    def image_placeholder(self, pixel_values: torch.Tensor) -> str:  # noqa: ARG002
        tokens = self.model.config.mm_tokens_per_image
        return f"\n\n<start_of_image>{'<image_soft_token>' * tokens}<end_of_image>\n\n"

    def text_inputs(self, is_image: torch.Tensor) -> Mapping[str, torch.Tensor]:
        # Without them image tokens would attend causally among themselves.
        return {"token_type_ids": is_image.int()}

    def block(self, is_image: torch.Tensor) -> torch.Tensor:
        return is_image

    def rotary(self, hidden: torch.Tensor, position_ids: torch.Tensor, kind: LayerKind) -> Any:
        return self.text_model.rotary_emb(hidden, position_ids, kind)
