"""A preset's generator in full size with new weights: nothing is downloaded, no file is written.

The shapes are those of the model's own configurations. Those of the presets' models ship in
``architectures/``; those of a model in a folder are read there.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from services.common.architectures import read, shipped
from services.common.footprint.words import Words
from services.common.new_weights import new_weights
from services.common.presets import GeneratorPreset, PresetError
from services.common.torch_tensors import DTYPES_BY_NAME
from services.generator.families.base import GeneratorFamily
from services.generator.registry import family_class

_SHIPPED = Path(__file__).parent / "architectures"
#: Tokens that a text encoder reads: CLIP's, and at most.
_CLIP, _LONGEST = 77, 512

Networks = dict[str, Any]


def generator(preset: GeneratorPreset, device: torch.device) -> GeneratorFamily:
    """The preset's generator on ``device``, text encoders included. Raises ``PresetError`` for a
    model of unknown architecture."""
    return assembled(preset, networks(preset, device), device)


def assembled(
    preset: GeneratorPreset, networks: Mapping[str, Any], device: torch.device
) -> GeneratorFamily:
    """The generator of these ``networks``. It reads prompts word by word, without meaning."""
    described = configurations(preset)
    family = family_class(preset)
    pipeline_class = getattr(diffusers, described["model_index"]["_class_name"])
    scheduler = described["scheduler"]
    parts = {
        **networks,
        "scheduler": getattr(diffusers, scheduler["_class_name"]).from_config(scheduler),
    }
    for name, parameter in inspect.signature(pipeline_class).parameters.items():
        if name.startswith("tokenizer"):
            encoder = parts[name.replace("tokenizer", "text_encoder")]
            parts[name] = Words(_CLIP if "CLIP" in type(encoder).__name__ else _LONGEST)
        elif name not in parts and parameter.default is inspect.Parameter.empty:
            parts[name] = None
    return family(pipeline_class(**parts | dict(family.load_options)), preset, device)


def networks(preset: GeneratorPreset, device: torch.device) -> Networks:
    """The networks by their names in the pipeline."""
    described = configurations(preset)
    made = {}
    with new_weights(DTYPES_BY_NAME[preset.dtype], device):
        for name, place in described["model_index"].items():
            config = described.get(name)
            if config is None or name == "scheduler":
                continue
            library, class_name = place
            made[name] = _network(library, class_name, config)
    return made


def configurations(preset: GeneratorPreset) -> Mapping[str, Any]:
    """``model_index`` and the configuration of each part, as in the model's folder."""
    if preset.is_on_hub:
        return shipped(preset, _SHIPPED)
    folder = Path(preset.model)
    try:
        index = read(folder / "model_index.json")
        found = {"model_index": index}
        for name, place in index.items():
            if isinstance(place, list) and place[0] in ("diffusers", "transformers"):
                for file in ("config.json", "scheduler_config.json"):
                    if (folder / name / file).exists():
                        found[name] = read(folder / name / file)
    except (OSError, ValueError) as error:
        raise PresetError(
            f"preset {preset.name}: {folder} is no model of diffusers: {error}; correct `model:`"
        ) from error
    return found


def _network(library: str, class_name: str, config: Mapping[str, Any]) -> Any:
    if library == "diffusers":
        network = getattr(diffusers, class_name).from_config(config)
        for name in ("x_pad_token", "cap_pad_token"):
            # diffusers leaves Z-Image's uninitialised.
            if hasattr(network, name):
                getattr(network, name).data.normal_(std=0.02)
        return network
    network_class = getattr(transformers, class_name)
    return network_class(network_class.config_class.from_dict(dict(config)))
