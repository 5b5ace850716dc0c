"""The service's image is the plain pipeline's image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FluxPipeline

from dualprocess.v1 import generator_pb2 as pb
from services.generator.families.base import GeneratorFamily
from services.generator.sample import render
from tests.generator.conftest import preset_of
from tests.generator.specs import image_spec


def plain(name: str) -> Any:
    pipeline = FluxPipeline.from_pretrained(preset_of(name).model, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


CASES = [
    ("flux-schnell", image_spec()),
    ("flux-schnell", image_spec(width=96, height=48, num_inference_steps=2)),
    # A distilled guidance input, and a shift that depends on the resolution.
    ("flux-dev", image_spec(num_inference_steps=4, guidance_scale=3.5)),
    ("flux-dev", image_spec(width=32, height=80, num_inference_steps=3)),
]


@pytest.mark.parametrize(("name", "image"), CASES)
def test_same_image_and_schedule(
    load: Callable[[str], GeneratorFamily], name: str, image: pb.ImageSpec
) -> None:
    family, pipeline = load(name), plain(name)
    seen: list[float] = []

    def note(_pipeline: Any, _index: int, timestep: torch.Tensor, _kwargs: Any) -> dict[str, Any]:
        seen.append(float(timestep))
        return {}

    wanted = pipeline(
        "Photo of a man",
        width=image.width,
        height=image.height,
        num_inference_steps=image.num_inference_steps,
        guidance_scale=image.guidance_scale,
        max_sequence_length=preset_of(name).max_sequence_length,
        generator=torch.Generator("cpu").manual_seed(7),
        output_type="np",
        callback_on_step_end=note,
    ).images[0]
    got = render(family, family.encode("Photo of a man", image_spec()), image, seed=7)
    assert got.shape == (image.height, image.width, 3)
    assert np.abs(got.astype(int) - (wanted * 255).round().astype(int)).max() <= 1
    assert family.schedule(image).timesteps.tolist() == pytest.approx(seen)


def test_sampling_and_training_meet_at_every_timestep(
    load: Callable[[str], GeneratorFamily],
) -> None:
    """x0 predicted at the last index is where the sampler itself ends."""
    family = load("flux-dev")
    image = image_spec(num_inference_steps=4)
    schedule = family.schedule(image)
    conditioning = family.encode("Photo of a man", image_spec())
    noise = family.noise([3], image)
    end = family.sample(noise, conditioning, schedule, until=4)
    latents = family.sample(noise, conditioning, schedule, until=3)
    with torch.no_grad():
        model_pred = family.denoise(latents, conditioning, schedule, 3)
    torch.testing.assert_close(family.predict_x0(latents, model_pred, schedule, 3), end)


def test_noise_of_a_batch_is_the_noise_of_its_seeds(schnell: GeneratorFamily) -> None:
    image = image_spec()
    batch = schnell.noise([1, 2], image)
    assert torch.equal(batch, torch.cat([schnell.noise([1], image), schnell.noise([2], image)]))
