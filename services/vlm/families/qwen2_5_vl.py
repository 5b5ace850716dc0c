"""Qwen2.5-VL: a windowed vision tower and Qwen2.5 (Bai et al., 2025, arXiv 2502.13923)."""

from __future__ import annotations

import torch
from transformers.vision_utils import get_vision_window_index

from services.vlm.families.qwen_vl import QwenVl
from services.vlm.transfer import upload


class Qwen2_5Vl(QwenVl):  # noqa: N801
    """Patches of 14 pixels, merged two by two."""

    model_class = "Qwen2_5_VLForConditionalGeneration"

    def tower_inputs(self, grid_thw: torch.Tensor) -> dict[str, torch.Tensor]:
        tower = self.model.model.visual
        window_index, cu_window_seqlens = get_vision_window_index(
            grid_thw, tower.spatial_merge_size, tower.window_size, tower.patch_size
        )
        return {
            **super().tower_inputs(grid_thw),
            "window_index": upload(window_index, self.device),
            "cu_window_seqlens": cu_window_seqlens,
        }
