"""What a generator's self-test draws."""

from __future__ import annotations

import torch

from services.generator.families.base import GeneratorFamily
from services.generator.registry import usual_image


@torch.no_grad()
def probe(family: GeneratorFamily) -> torch.Tensor:
    """An image of the least size, after one step of the sampler, by the base model: every part of
    it is asked. Shaped and scaled as ``GeneratorFamily.decode`` says; the same each time."""
    side = family.preset.sides.nearest(family.preset.sides.minimum)[0]
    image = usual_image(family.preset)
    image.width = image.height = side
    conditioning = family.encode("a circle", image)
    latents = family.sample(family.noise([0], image), conditioning, family.schedule(image), until=1)
    return family.decode(latents, image)
