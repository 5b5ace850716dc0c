"""Idefics2: SigLIP tower, perceiver, Mistral (Laurençon et al., 2024)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from PIL import Image

from services.vlm.families import siglip
from services.vlm.families.base import VlmFamily
from services.vlm.preprocess import resize

_BOUNDARY = "<fake_token_around_image>"
_IMAGE = "<image>"


class Idefics2(VlmFamily):
    """One image per conversation, not split into tiles. ``pixel_values`` [batch, 3, h, w]."""

    model_class = "Idefics2ForConditionalGeneration"

    def pixel_values(self, unit_BCHW: torch.Tensor) -> torch.Tensor:
        height, width = unit_BCHW.shape[-2:]
        return self.normalize(resize(unit_BCHW, self._target_size(height, width), "bilinear"))

    def _target_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) after the processor's resize: the longer side is limited, then no side
        is below the least."""
        longest = self.image_processor.size["longest_edge"]
        shortest = self.image_processor.size["shortest_edge"]
        aspect = width / height
        if width >= height and width > longest:
            height, width = int(longest / aspect), longest
        elif height > width and height > longest:
            height, width = longest, int(longest * aspect)
        return max(height, shortest), max(width, shortest)

    def processed(self, picture: Image.Image) -> torch.Tensor:
        batch = self.image_processor(picture, do_image_splitting=False, return_tensors="pt")
        pixel_values: torch.Tensor = batch["pixel_values"][0]
        return pixel_values.to(self.device)

    def image_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        model = self.model.model
        hidden = siglip.hidden_states(model.vision_model, pixel_values.to(model.dtype))
        context = model.connector.modality_projection(hidden)
        # Not its own forward, which reads on the host that no patch is masked.
        resampler = model.connector.perceiver_resampler
        latents = resampler.latents.expand(len(context), -1, -1)
        for layer in resampler.layers:
            latents = layer(latents, context)
        features: torch.Tensor = resampler.norm(latents)
        return features

    @property
    def text_model(self) -> Any:
        return self.model.model.text_model

    def image_placeholder(self, pixel_values: torch.Tensor) -> str:  # noqa: ARG002
        latents = self.model.config.perceiver_config.resampler_n_latents
        return f"{_BOUNDARY}{_IMAGE * latents}{_BOUNDARY}"

    def vision_inputs(self, pixel_values: torch.Tensor) -> Mapping[str, torch.Tensor]:
        return super().vision_inputs(pixel_values.unsqueeze(1))
