"""Qwen2.5-VL: a windowed vision tower and Qwen2.5 (Bai et al., 2025, arXiv 2502.13923)."""

from __future__ import annotations

from services.vlm.families.qwen_vl import QwenVl


class Qwen2_5Vl(QwenVl):  # noqa: N801
    """Patches of 14 pixels, merged two by two."""

    model_class = "Qwen2_5_VLForConditionalGeneration"
