"""A preset's VLM in full size with new weights: nothing is downloaded, no file is written.

The shapes are those of the model's own configuration. Those of the presets' models ship in
``architectures/``; those of a model in a folder are read there.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import transformers

from services.common.architectures import read, shipped
from services.common.footprint.words import Words
from services.common.new_weights import new_weights
from services.common.presets import PresetError, VlmPreset
from services.common.torch_tensors import DTYPES_BY_NAME
from services.vlm.families.base import VlmFamily
from services.vlm.registry import family_class

_SHIPPED = Path(__file__).parent / "architectures"


def vlm(preset: VlmPreset, device: torch.device) -> VlmFamily:
    """The preset's VLM on ``device``. Raises ``PresetError`` for a model of unknown
    architecture."""
    return assembled(preset, network(preset, device), device)


def assembled(preset: VlmPreset, network: Any, device: torch.device) -> VlmFamily:
    """The VLM of this ``network``. It reads questions word by word, without meaning."""
    family = family_class(preset)
    words = Words(image_token_id=network.config.image_token_id)
    return family(network, words, _image_processor(preset, family), preset, device)


def network(preset: VlmPreset, device: torch.device) -> Any:
    """Only the model, without its processor."""
    model_class = getattr(transformers, family_class(preset).model_class)
    config = model_class.config_class.from_dict(_config(preset))
    with new_weights(DTYPES_BY_NAME[preset.dtype], device):
        return model_class(config)


def _config(preset: VlmPreset) -> dict[str, Any]:
    if preset.is_on_hub:
        return dict(shipped(preset, _SHIPPED)["config"])
    path = Path(preset.model) / "config.json"
    try:
        return read(path)
    except (OSError, ValueError) as error:
        raise PresetError(
            f"preset {preset.name}: {path} can't be read: {error}; correct `model:`"
        ) from error


def _image_processor(preset: VlmPreset, family: type[VlmFamily]) -> Any:
    if preset.is_on_hub:
        return SimpleNamespace(
            temporal_patch_size=2, **shipped(preset, _SHIPPED)["preprocessor_config"]
        )
    return getattr(transformers, family.image_processor_class).from_pretrained(preset.model)
