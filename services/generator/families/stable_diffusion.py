"""Stable Diffusion 1: latent diffusion in a U-Net, with DDIM (Rombach et al., 2022; Song et al.,
2021; diffusers' ``StableDiffusionPipeline`` and ``DDIMScheduler``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from diffusers import DDIMScheduler

from dualprocess.v1 import generator_pb2 as pb
from services.common.presets import GeneratorPreset
from services.generator.families.base import Conditioning, Schedule
from services.generator.families.epsilon import EpsilonFamily, spread
from services.generator.families.sampler_settings import refusal


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
    # Samplers that never clip don't have this setting; x0 of latents must not be clipped at 1.
    sampler_defaults: ClassVar[Mapping[str, Any]] = {"clip_sample": False}

    def __init__(self, pipeline: Any, preset: GeneratorPreset, device: torch.device) -> None:
        super().__init__(pipeline, preset, device)
        config = self._scheduler.config
        if (
            config.rescale_betas_zero_snr
            and self.predicts_noise
            and config.timestep_spacing != "leading"
        ):
            raise refusal(
                preset,
                "rescale_betas_zero_snr",
                True,
                "so that nothing of the image is left at the first noise level, and no prediction "
                "of the noise can tell it",
                'take it out, or write timestep_spacing "leading"; a model that predicts v says so '
                'with prediction_type "v_prediction"',
            )

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

    def _schedule(self, image: pb.ImageSpec) -> Schedule:
        scheduler, steps = self._scheduler, image.num_inference_steps
        scheduler.set_timesteps(steps, device=self.device)
        timesteps = scheduler.timesteps.clone()
        alphas_bar = scheduler.alphas_cumprod
        final = scheduler.final_alpha_cumprod
        # DDIM computes the end of a step with one formula for all spacings. So a step ends at the
        # level of a trained timestep, for many models also the last step, and with some spacings
        # not at the next step's level.
        stride = scheduler.config.num_train_timesteps // steps
        ends = [alphas_bar[end] if end >= 0 else final for end in (timesteps - stride).tolist()]
        ends_N = _sigma(torch.stack(ends)).to(self.device)
        sigmas_N = _sigma(alphas_bar[timesteps.cpu()]).to(self.device)
        return Schedule(image, timesteps, torch.cat([sigmas_N, ends_N[-1:]]), ends_N)

    def _divided(self, latents: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        return latents

    def _x0_and_noise(
        self, latents: torch.Tensor, model_pred: torch.Tensor, sigma: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        noisy, prediction = latents.float(), model_pred.float()
        signal, deviation = _parts(sigma)
        if self.predicts_noise:
            x0, noise = (noisy - deviation * prediction) / signal, prediction
        else:
            x0 = signal * noisy - deviation * prediction
            noise = signal * prediction + deviation * noisy
        return self._limited(x0), noise

    def _limited(self, x0: torch.Tensor) -> torch.Tensor:
        config = self._scheduler.config
        if config.thresholding:
            # Thresholding as in Imagen (Saharia et al., 2022), by diffusers' own function.
            limited: torch.Tensor = self._scheduler._threshold_sample(x0)
            return limited
        if config.clip_sample:
            return x0.clamp(-config.clip_sample_range, config.clip_sample_range)
        return x0

    def _mixed(self, x0: torch.Tensor, noise: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        signal, deviation = _parts(sigma)
        return signal * x0 + deviation * noise


def _sigma(alpha_bar: torch.Tensor) -> torch.Tensor:
    return ((1 - alpha_bar) / alpha_bar).sqrt()


def _parts(sigma: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """sqrt(alpha_bar) and sqrt(1 - alpha_bar); 0 and 1 at an infinite sigma."""
    signal = 1 / spread(sigma)
    return signal, torch.where(sigma.isinf(), torch.ones_like(sigma), sigma * signal)
