"""Drawings laid over images before a question is asked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from dualprocess.v1 import vlm_pb2
from services.common import pictures
from services.common.errors import InvalidInput
from services.vlm import solid
from services.vlm.transfer import upload


@dataclass(frozen=True)
class VisualPrompt:
    """A drawing and its mode. Drawings with equal bytes share one pass of the vision tower."""

    encoded: bytes
    mode: vlm_pb2.VisualPromptMode.ValueType
    drawing: Image.Image = field(compare=False, repr=False)

    @classmethod
    def decode(cls, encoded: bytes, mode: vlm_pb2.VisualPromptMode.ValueType, name: str) -> Self:
        """Raises ``InvalidInput`` for a drawing that can't be used; the message begins with
        ``name``."""
        if mode not in (
            vlm_pb2.VISUAL_PROMPT_MODE_SOLID,
            vlm_pb2.VISUAL_PROMPT_MODE_TRANSPARENT,
        ):
            raise InvalidInput(f"{name}.mode: choose solid or transparent")
        return cls(encoded, mode, pictures.decode(encoded, f"{name}.image"))

    def over(self, images: torch.Tensor) -> torch.Tensor:
        """``images`` [batch, 3, height, width] in [-1, 1] with the drawing over each.

        ``solid``: every pixel of the drawing that is not pure white replaces the image's, whose
        gradient is zero there; ``solid.resized`` says how a drawing of another size is.
        ``transparent``: half drawing, half image, everywhere.
        """
        height, width = images.shape[-2:]
        size = (width, height)
        if self.mode == vlm_pb2.VISUAL_PROMPT_MODE_TRANSPARENT:
            return (images + _unit(_resized(self.drawing, size), images)) / 2
        pixels_HWC, is_drawn_HW = solid.resized(self.drawing, size)
        is_drawn = upload(torch.from_numpy(is_drawn_HW), images.device)
        return torch.where(is_drawn, _unit(pixels_HWC, images), images)


def _resized(drawing: Image.Image, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    same = drawing.size == size
    return np.array(drawing if same else drawing.resize(size, Image.Resampling.BILINEAR))


def _unit(pixels_HWC: npt.NDArray[np.uint8], images: torch.Tensor) -> torch.Tensor:
    """[3, height, width] in [-1, 1], beside ``images``."""
    pixels = upload(torch.from_numpy(pixels_HWC), images.device)
    return (pixels.permute(2, 0, 1) / 127.5 - 1).to(images.dtype)
