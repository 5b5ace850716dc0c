"""Qwen3-VL: the tower's deeper features enter the text model's first layers (DeepStack, Meng et
al., 2024, arXiv 2406.04334)."""

from __future__ import annotations

from typing import Any

import torch
from transformers.vision_utils import get_vision_interpolation_indices_and_weights

from services.vlm.families.qwen_vl import QwenVl
from services.vlm.transfer import upload


class Qwen3Vl(QwenVl):
    """Patches of 16 pixels, merged two by two. A feature's width is the text model's, times one
    more than the layers it enters."""

    model_class = "Qwen3VLForConditionalGeneration"

    def joined_features(self, vision: Any) -> torch.Tensor:
        deeper = [torch.cat(images) for images in vision.deepstack_features]
        return torch.cat([torch.cat(vision.pooler_output), *deeper], dim=-1)

    def tower_inputs(self, grid_thw: torch.Tensor) -> dict[str, torch.Tensor]:
        tower = self.model.model.visual
        indices, weights = get_vision_interpolation_indices_and_weights(
            grid_thw,
            num_grid_per_side=tower.num_grid_per_side,
            mode=tower.interpolation_mode,
            align_corners=tower.interpolation_align_corners,
            spatial_merge_size=tower.config.spatial_merge_size,
        )
        return {
            **super().tower_inputs(grid_thw),
            "interp_indices": upload(indices, self.device),
            "interp_weights": upload(weights, self.device),
        }
