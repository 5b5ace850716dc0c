"""The families of generators, one row for each; ``test_families`` tests all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import diffusers
import torch

from dualprocess.v1 import generator_pb2 as pb
from services.common.presets import GeneratorPreset, load_presets
from services.generator import registry
from services.generator.families.base import GeneratorFamily
from tests.generator.specs import image_spec
from tests.generator.tiny import flux2, sana_sprint, sdxl, z_image
from tests.temporary import temporary_folder

PARITY = Path(__file__).parents[1] / "fixtures" / "parity"


@dataclass(frozen=True, eq=False)
class Row:
    """A preset on a tiny random model in the hub's layout.

    ``pipeline`` is the diffusers class it must equal, called with ``options`` beside what every
    pipeline takes. ``images`` are sizes, steps and guidance to try; the first is the cheapest.
    ``build`` writes the tiny model into a folder; without it the model lies in the fixtures.
    """

    preset: str
    pipeline: str
    images: tuple[pb.ImageSpec, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    build: Callable[[Path], None] | None = None
    #: Class of the sampler, if it is not the one in the model's folder.
    scheduler: str | None = None
    #: The sampler draws noise of its own between two steps.
    ancestral: bool = False
    #: Options that depend on the image.
    image_options: Callable[[pb.ImageSpec], Mapping[str, Any]] | None = None
    #: How far from the LoRA, along its gradient, the image is still linear.
    reach: float = 1e-2

    def __str__(self) -> str:
        return self.preset

    @property
    def tiny(self) -> GeneratorPreset:
        """The real preset, on the tiny model, in float32, at sizes that are quick."""
        preset = load_presets().generator(self.preset)
        sides = preset.sides.model_copy(update={"minimum": preset.sides.multiple_of})
        changes = {"model": str(folder(self)), "dtype": "float32", "sides": sides}
        return preset.model_copy(update=changes)

    def load(self, dtype: str = "float32") -> GeneratorFamily:
        preset = self.tiny.model_copy(update={"dtype": dtype})
        return registry.load(preset, torch.device("cpu"))

    def plain(self, **parts: Any) -> Any:
        """diffusers' own pipeline on the same model, with these parts instead of its own."""
        pipeline = getattr(diffusers, self.pipeline).from_pretrained(
            folder(self), dtype=torch.float32, **parts
        )
        pipeline.set_progress_bar_config(disable=True)
        if self.scheduler is not None:
            sampler = getattr(diffusers, self.scheduler)
            config = pipeline.scheduler.config
            # Flow samplers have two names for one setting.
            shift = {"shift": config["flow_shift"]} if "flow_shift" in config else {}
            pipeline.scheduler = sampler.from_config(config, **shift)
        return pipeline

    def draw(
        self, pipeline: Any, prompt: str, image: pb.ImageSpec, seed: int, **more: Any
    ) -> torch.Tensor:
        """The plain pipeline's image [1, 3, height, width] in [0, 1]."""
        if image.negative_prompt:
            more["negative_prompt"] = image.negative_prompt
        if self.image_options is not None:
            more |= self.image_options(image)
        result: torch.Tensor = pipeline(
            prompt=prompt,
            width=image.width,
            height=image.height,
            num_inference_steps=image.num_inference_steps,
            guidance_scale=image.guidance_scale,
            generator=torch.Generator("cpu").manual_seed(seed),
            output_type="pt",
            **self.options,
            **more,
        ).images
        return result


@cache
def folder(row: Row) -> Path:
    if row.build is None:
        return PARITY / "models" / row.preset
    path = temporary_folder(f"{row.preset}-")
    row.build(path)
    return path


def _evenly_spaced(image: pb.ImageSpec) -> Mapping[str, Any]:
    steps = image.num_inference_steps
    return {"sigmas": [1 - index / steps for index in range(steps)]}


def _intermediate_timesteps(image: pb.ImageSpec) -> Mapping[str, Any]:
    """The pipeline's default would not allow any other number of steps."""
    return {} if image.num_inference_steps == 2 else {"intermediate_timesteps": None}


ROWS = (
    Row(
        "flux-schnell",
        "FluxPipeline",
        (image_spec(), image_spec(width=96, height=48, num_inference_steps=2)),
        {"max_sequence_length": 256},
    ),
    # A distilled guidance input, and a shift that depends on the resolution.
    Row(
        "flux-dev",
        "FluxPipeline",
        (
            image_spec(num_inference_steps=4, guidance_scale=3.5),
            image_spec(width=32, height=80, num_inference_steps=3),
        ),
        {"max_sequence_length": 512},
    ),
    # Classifier-free guidance; the last step ends at a noise level above zero.
    Row(
        "sd-1.4",
        "StableDiffusionPipeline",
        (
            image_spec(num_inference_steps=2, guidance_scale=7.5),
            pb.ImageSpec(
                width=72,
                height=48,
                num_inference_steps=5,
                guidance_scale=7.5,
                negative_prompt="a blurry photo",
            ),
            image_spec(width=40, height=64, num_inference_steps=3),
        ),
        scheduler="DDIMScheduler",
    ),
    # Latents of variance sigma² + 1; no negative prompt is another thing than an empty one.
    Row(
        "sdxl-turbo",
        "StableDiffusionXLPipeline",
        (
            image_spec(),
            image_spec(width=72, height=48, num_inference_steps=4),
            image_spec(width=40, height=64, num_inference_steps=2, guidance_scale=7.5),
            pb.ImageSpec(
                width=48,
                height=64,
                num_inference_steps=3,
                guidance_scale=7.5,
                negative_prompt="a blurry photo",
            ),
        ),
        build=sdxl.build,
        scheduler="EulerDiscreteScheduler",
        # One step goes all the way from sigma 14.6, and amplifies the prediction as much.
        reach=1e-3,
    ),
    Row(
        "flux2-klein",
        "Flux2KleinPipeline",
        (
            image_spec(num_inference_steps=2),
            image_spec(width=96, height=48, num_inference_steps=4),
        ),
        {"max_sequence_length": 512},
        build=flux2.build,
    ),
    Row(
        "z-image-turbo",
        "ZImagePipeline",
        (
            image_spec(num_inference_steps=2),
            image_spec(width=48, height=96, num_inference_steps=8),
            # Classifier-free guidance begins above 0 here, not above 1.
            image_spec(num_inference_steps=2, guidance_scale=0.5),
            pb.ImageSpec(
                width=64,
                height=32,
                num_inference_steps=3,
                guidance_scale=4,
                negative_prompt="a bad photo with words longer than the prompt",
            ),
        ),
        {"max_sequence_length": 512},
        build=z_image.build,
    ),
    Row(
        "sana-1.6b",
        "SanaPipeline",
        (
            image_spec(num_inference_steps=2, guidance_scale=4.5),
            pb.ImageSpec(
                width=96,
                height=64,
                num_inference_steps=5,
                guidance_scale=3,
                negative_prompt="Blurry, with six fingers",
            ),
            image_spec(width=32, height=96, num_inference_steps=3, guidance_scale=1),
        ),
        # The pipeline would draw the nearest of its training sizes and resize that: other noise,
        # and not the size asked for.
        {"use_resolution_binning": False},
        scheduler="FlowMatchEulerDiscreteScheduler",
        image_options=_evenly_spaced,
        # The ReLU attention of the tiny autoencoder is full of kinks: in float64 too, the slope is
        # off by 3 % at 1e-4 and by a third at 1e-2, and by 0.2 % here.
        reach=1e-5,
    ),
    Row(
        "sana-sprint",
        "SanaSprintPipeline",
        (
            image_spec(num_inference_steps=2, guidance_scale=4.5),
            image_spec(width=96, height=64, guidance_scale=2),
            image_spec(width=32, height=96, num_inference_steps=4, guidance_scale=4.5),
        ),
        # As for Sana.
        {"use_resolution_binning": False},
        build=sana_sprint.build,
        ancestral=True,
        image_options=_intermediate_timesteps,
        # The same autoencoder.
        reach=1e-5,
    ),
)
