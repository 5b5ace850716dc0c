"""The computation of a generator's self-test."""

from __future__ import annotations

import torch

from services.generator.families.base import GeneratorFamily
from services.generator.registry import usual_image


@torch.no_grad()
def probe(family: GeneratorFamily) -> torch.Tensor:
    """The smallest image of the base model, after one step of the sampler. It needs every part of
    the model, and is the same each time. Shape and range are as in ``GeneratorFamily.decode``."""
    side = family.preset.sides.nearest(family.preset.sides.minimum)[0]
    image = usual_image(family.preset)
    image.width = image.height = side
    conditioning = family.encode("a circle", image)
    latents = family.sample(family.noise([0], image), conditioning, family.schedule(image), until=1)
    return family.decode(latents, image)
