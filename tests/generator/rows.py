"""The families of generators, a row each: what ``test_families`` proves, it proves for all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import diffusers
import torch

from dualprocess.v1 import generator_pb2 as pb
from services.common.presets import GeneratorPreset, load_presets
from services.generator import registry
from services.generator.families.base import GeneratorFamily
from tests.generator.specs import image_spec

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
    #: Class of the sampler, where it is not the one in the model's own folder.
    scheduler: str | None = None
    #: The sampler draws noise of its own between two steps.
    ancestral: bool = False

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

    def plain(self) -> Any:
        """diffusers' own pipeline on the same model."""
        pipeline = getattr(diffusers, self.pipeline).from_pretrained(
            folder(self), dtype=torch.float32
        )
        pipeline.set_progress_bar_config(disable=True)
        if self.scheduler is not None:
            sampler = getattr(diffusers, self.scheduler)
            pipeline.scheduler = sampler.from_config(pipeline.scheduler.config)
        return pipeline

    def draw(
        self, pipeline: Any, prompt: str, image: pb.ImageSpec, seed: int, **more: Any
    ) -> torch.Tensor:
        """The plain pipeline's image [1, 3, height, width] in [0, 1]."""
        if image.negative_prompt:
            more["negative_prompt"] = image.negative_prompt
        result: torch.Tensor = pipeline(
            prompt,
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
    path = Path(mkdtemp(prefix=f"{row.preset}-"))
    row.build(path)
    return path


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
)
