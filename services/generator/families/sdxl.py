"""SDXL and SDXL-turbo: a larger U-Net, two text encoders, and the image's size as a condition
(Podell et al., 2023; Sauer et al., 2023; diffusers' ``StableDiffusionXLPipeline``).

The sampler is ``EulerDiscreteScheduler`` with the model's own settings. SDXL-turbo ships the
ancestral one: for one step the two are the same; for several, that one adds fresh noise between two
steps, so that an image would no longer be a function of its first latents alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from diffusers import EulerDiscreteScheduler

from dualprocess.v1 import generator_pb2 as pb
from services.common.to_device import to_device
from services.generator.families.base import Conditioning, Schedule
from services.generator.families.epsilon import EpsilonFamily, spread


class StableDiffusionXL(EpsilonFamily):
    """Conditioning: ``encoder_hidden_states`` [1 or 2, 77, channels] of both text encoders, and
    ``text_embeds`` [1 or 2, channels], the second one's pooled output."""

    architecture = "stable-diffusion-xl-v1-base"
    pipeline_class = "StableDiffusionXLPipeline"
    load_options: ClassVar[Mapping[str, Any]] = {"add_watermarker": False}
    text_encoder_names = ("text_encoder", "text_encoder_2")
    sampler = EulerDiscreteScheduler

    def _encode(self, prompt: str, negative_prompt: str | None) -> Conditioning:
        embeds, negative_embeds, pooled, negative_pooled = self.pipeline.encode_prompt(
            prompt,
            device=self.device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=negative_prompt is not None,
            # SDXL learned the empty negative prompt as zeros: that is what None means here.
            negative_prompt=negative_prompt or None,
        )
        if negative_prompt is not None:
            embeds = torch.cat([negative_embeds, embeds])
            pooled = torch.cat([negative_pooled, pooled])
        return {"encoder_hidden_states": embeds, "text_embeds": pooled}

    def _added_conditions(
        self, rows: Mapping[str, torch.Tensor], image: pb.ImageSpec
    ) -> dict[str, torch.Tensor]:
        size = (image.height, image.width)
        # Original size, top left corner of the crop, target size.
        time_ids = to_device(torch.tensor((*size, 0, 0, *size), dtype=self.dtype), self.device)
        text_embeds = rows["text_embeds"]
        return {"text_embeds": text_embeds, "time_ids": time_ids.expand(len(text_embeds), -1)}

    def _schedule(self, image: pb.ImageSpec) -> Schedule:
        self._scheduler.set_timesteps(image.num_inference_steps, device=self.device)
        # One kind of interpolation gives one level more than steps.
        sigmas = self._scheduler.sigmas[: image.num_inference_steps + 1]
        timesteps = self._scheduler.timesteps.clone()
        return Schedule(image, timesteps, sigmas.to(self.device, copy=True))

    def _divided(self, latents: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return latents / spread(sigma)

    def _x0_and_noise(
        self, latents: torch.Tensor, model_pred: torch.Tensor, sigma: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        noisy, prediction = latents.float(), model_pred.float()
        if self.predicts_noise:
            return noisy - sigma * prediction, prediction
        x0 = (noisy / spread(sigma) - sigma * prediction) / spread(sigma)
        return x0, (noisy - x0) / sigma

    def _mixed(self, x0: torch.Tensor, noise: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return x0 + sigma * noise
