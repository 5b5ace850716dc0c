"""Stable Diffusion 1: latent diffusion in a U-Net, with DDIM (Rombach et al., 2022; Song et al.,
2021; diffusers' ``StableDiffusionPipeline`` and ``DDIMScheduler``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from diffusers import DDIMScheduler

from dualprocess.v1 import generator_pb2 as pb
from services.generator.families.base import Conditioning, Schedule
from services.generator.families.epsilon import EpsilonFamily


class StableDiffusion(EpsilonFamily):
    """Conditioning: ``encoder_hidden_states`` [1 or 2, 77, channels]."""

    architecture = "stable-diffusion-v1"
    pipeline_class = "StableDiffusionPipeline"
    load_options: ClassVar[Mapping[str, Any]] = {
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }
    sampler = DDIMScheduler
    variance_preserving = True

    def _encode(self, prompt: str, negative_prompt: str | None) -> Conditioning:
        embeds, negative_embeds = self.pipeline.encode_prompt(
            prompt,
            self.device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=negative_prompt is not None,
            negative_prompt=negative_prompt,
        )
        if negative_prompt is not None:
            embeds = torch.cat([negative_embeds, embeds])
        return {"encoder_hidden_states": embeds}

    def schedule(self, image: pb.ImageSpec) -> Schedule:
        scheduler, steps = self._scheduler, image.num_inference_steps
        scheduler.set_timesteps(steps, device=self.device)
        timesteps = scheduler.timesteps.clone()
        alphas_bar = scheduler.alphas_cumprod[timesteps.cpu()]
        # The noise level that the last step ends at: that of a trained timestep, for many models.
        end = int(timesteps[-1]) - scheduler.config.num_train_timesteps // steps
        last = scheduler.alphas_cumprod[end] if end >= 0 else scheduler.final_alpha_cumprod
        alphas_bar = torch.cat([alphas_bar, last[None]])
        sigmas = ((1 - alphas_bar) / alphas_bar).sqrt()
        return Schedule(image, timesteps, sigmas.to(self.device))
