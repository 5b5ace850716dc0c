from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from services.common.presets import VlmPreset, load_presets
from services.vlm import registry
from services.vlm.families.base import VlmFamily

PARITY = Path(__file__).parents[1] / "fixtures" / "parity"


@pytest.fixture(scope="session")
def preset() -> VlmPreset:
    """The real preset, on a tiny random model, in float32."""
    real = load_presets().vlm("idefics2")
    return real.model_copy(
        update={"model": str(PARITY / "models" / "idefics2"), "dtype": "float32"}
    )


@pytest.fixture(scope="session")
def vlm(preset: VlmPreset) -> VlmFamily:
    torch.set_num_threads(1)
    return registry.load(preset, torch.device("cpu"))


@pytest.fixture(scope="session")
def images() -> dict[str, torch.Tensor]:
    """Recorded photographs and noise, each [1, 3, height, width] in [-1, 1]."""
    tensors: dict[str, torch.Tensor] = load_file(PARITY / "images.safetensors")
    return tensors


def png(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def picture(image: torch.Tensor) -> Image.Image:
    """The 8-bit picture of an image [1, 3, height, width] in [-1, 1]."""
    pixels = ((image[0] + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())
