"""Drawings laid over images before a question is asked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

import numpy as np
import torch
from PIL import Image

from dualprocess.v1 import vlm_pb2
from services.common import pictures
from services.common.errors import InvalidInput


@dataclass(frozen=True)
class VisualPrompt:
    """A drawing and how it is laid. Those with equal bytes share one pass of the vision tower."""

    encoded: bytes
    mode: vlm_pb2.VisualPromptMode.ValueType
    drawing: Image.Image = field(compare=False, repr=False)

    @classmethod
    def decode(cls, encoded: bytes, mode: vlm_pb2.VisualPromptMode.ValueType, name: str) -> Self:
        """Raises ``InvalidInput``, beginning with ``name``, for what can't be laid."""
        if mode not in (
            vlm_pb2.VISUAL_PROMPT_MODE_SOLID,
            vlm_pb2.VISUAL_PROMPT_MODE_TRANSPARENT,
        ):
            raise InvalidInput(f"{name}.mode: choose solid or transparent")
        return cls(encoded, mode, pictures.decode(encoded, f"{name}.image"))

    def over(self, images: torch.Tensor) -> torch.Tensor:
        """``images`` [batch, 3, height, width] in [-1, 1] with the drawing over each.

        ``solid``: every pixel of the drawing that is not pure white replaces the image's, whose
        gradient is zero there. ``transparent``: half drawing, half image, everywhere. A drawing
        of another size is resized first.
        """
        drawing = self.drawing
        height, width = images.shape[-2:]
        if drawing.size != (width, height):
            drawing = drawing.resize((width, height), Image.Resampling.BILINEAR)
        pixels_HWC = torch.from_numpy(np.array(drawing)).to(images.device)
        drawn_CHW = (pixels_HWC.permute(2, 0, 1) / 127.5 - 1).to(images.dtype)
        if self.mode == vlm_pb2.VISUAL_PROMPT_MODE_TRANSPARENT:
            return (images + drawn_CHW) / 2
        is_drawn_HW = (pixels_HWC != 255).any(-1)
        return torch.where(is_drawn_HW, drawn_CHW, images)
