"""The class of each preset's family. A family's libraries are loaded when it is first used."""

from __future__ import annotations

from importlib import import_module

import torch

from dualprocess.v1 import generator_pb2 as pb
from services.common.errors import InvalidInput, StartError
from services.common.memory import MemoryChoice
from services.common.presets import GeneratorPreset, PresetError
from services.common.quantize import check_quantize
from services.generator.families.base import GeneratorFamily
from services.generator.memory import levels

_FAMILIES = {
    "flux": "services.generator.families.flux:Flux",
    "stable_diffusion": "services.generator.families.stable_diffusion:StableDiffusion",
    "sdxl": "services.generator.families.sdxl:StableDiffusionXL",
    "flux2": "services.generator.families.flux2:Flux2",
    "z_image": "services.generator.families.z_image:ZImage",
    "sana": "services.generator.families.sana:Sana",
    "sana_sprint": "services.generator.families.sana_sprint:SanaSprint",
}


def load(
    preset: GeneratorPreset, device: torch.device, memory: MemoryChoice | None = None
) -> GeneratorFamily:
    """Loads the preset's generator on ``device``, at a level of ``memory``, or at the preset's.

    Raises ``PresetError`` for an unknown family, a dtype that training can't use, and an
    unsupported sampler; ``StartError`` for a model that can't be loaded.
    """
    family = family_class(preset)
    if preset.dtype == "float16":
        raise PresetError(
            f"preset {preset.name}: dtype float16 is not for generators, since much of a LoRA's "
            "gradient is too small for it; write bfloat16, which takes the same memory, or float32"
        )
    check_quantize(preset)
    try:
        loaded = family.load(preset, device)
        levels.apply(loaded, levels.choose(memory or preset.memory))
        loaded.schedule(usual_image(preset))
    except PresetError:
        raise
    except InvalidInput as error:
        raise PresetError(f"preset {preset.name}: {error}") from error
    # OSError for what can't be fetched or read, ImportError for a missing package of a sampler; for
    # some of it the libraries raise ValueError.
    except (OSError, ImportError, ValueError) as error:
        raise StartError(f"{preset.model} can't be loaded: {error}") from error
    return loaded


def family_class(preset: GeneratorPreset) -> type[GeneratorFamily]:
    """Raises ``PresetError`` for an unknown family."""
    if preset.family not in _FAMILIES:
        raise PresetError(
            f"preset {preset.name}: family {preset.family!r} is unknown: "
            f"choose one of {', '.join(_FAMILIES)}"
        )
    module, _, name = _FAMILIES[preset.family].partition(":")
    family: type[GeneratorFamily] = getattr(import_module(module), name)
    return family


def usual_image(preset: GeneratorPreset) -> pb.ImageSpec:
    """The image that the preset draws by itself."""
    image = preset.image
    return pb.ImageSpec(
        width=image.width,
        height=image.height,
        num_inference_steps=image.num_inference_steps,
        guidance_scale=image.guidance_scale,
    )
