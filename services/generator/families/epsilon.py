"""Latent diffusion with a U-Net that predicts the noise, or v: what Stable Diffusion and SDXL share
(Ho et al., 2020; Rombach et al., 2022).

A noisy latent is x_sigma = x0 + sigma noise. Some samplers keep it as it is (variance-exploding),
some divide it by sqrt(1 + sigma²), which is sqrt(1 / alpha_bar) (variance-preserving). The U-Net
always sees the divided form.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch

from dualprocess.v1 import generator_pb2 as pb
from services.common.presets import GeneratorPreset, PresetError
from services.generator.families.base import Conditioning, GeneratorFamily, Schedule
from services.generator.families.noise import drawn


class EpsilonFamily(GeneratorFamily):
    """Latents are [batch, 4, height / 8, width / 8].

    A conditioning has one row, that of the prompt; with classifier-free guidance it has two: the
    negative prompt's, then the prompt's.
    """

    lora_prefix = "unet"
    kohya_prefix = "lora_unet"
    classifier_free = True
    #: diffusers' class of the sampler; its settings are the model's own.
    sampler: ClassVar[Any]
    #: Whether latents are x_sigma / sqrt(1 + sigma²) between two steps, or x_sigma itself.
    variance_preserving: ClassVar[bool]

    def __init__(self, pipeline: Any, preset: GeneratorPreset, device: torch.device) -> None:
        pipeline.scheduler = self.sampler.from_config(pipeline.scheduler.config)
        super().__init__(pipeline, preset, device)
        self._scheduler = pipeline.scheduler
        if self._scheduler.config.prediction_type not in ("epsilon", "v_prediction"):
            raise PresetError(
                f"preset {preset.name}: {preset.model} predicts "
                f"{self._scheduler.config.prediction_type!r}, not 'epsilon' or 'v_prediction'"
            )

    def noise(self, seeds: Sequence[int], image: pb.ImageSpec) -> torch.Tensor:
        side = self.pipeline.vae_scale_factor
        shape = (self.denoiser.config.in_channels, image.height // side, image.width // side)
        # The sampler knows its first noise level only once it knows its steps.
        self._scheduler.set_timesteps(image.num_inference_steps)
        noise: torch.Tensor = drawn(seeds, shape, self.dtype) * self._scheduler.init_noise_sigma
        return noise.to(self.device)

    def denoise(
        self, latents: torch.Tensor, conditioning: Conditioning, schedule: Schedule, index: int
    ) -> torch.Tensor:
        batch, branches = len(latents), len(conditioning["encoder_hidden_states"])
        rows = {
            name: tensor.repeat_interleave(batch, dim=0) for name, tensor in conditioning.items()
        }
        noisy = latents
        if not self.variance_preserving:
            noisy = latents / _spread(schedule.sigmas[index])
        model_pred: torch.Tensor = self.denoiser(
            noisy.repeat(branches, 1, 1, 1),
            schedule.timesteps[index],
            encoder_hidden_states=rows["encoder_hidden_states"],
            added_cond_kwargs=self._added_conditions(rows, schedule.image),
            return_dict=False,
        )[0]
        if branches == 1:
            return model_pred
        unconditional, conditional = model_pred.chunk(2)
        return unconditional + schedule.image.guidance_scale * (conditional - unconditional)

    def _added_conditions(
        self, rows: Mapping[str, torch.Tensor], image: pb.ImageSpec
    ) -> dict[str, torch.Tensor] | None:
        """What the U-Net is told beside the text, from the conditioning in the batch's rows."""

    @abstractmethod
    def schedule(self, image: pb.ImageSpec) -> Schedule:
        """Sigmas are sqrt((1 - alpha_bar) / alpha_bar)."""

    def advance(
        self, latents: torch.Tensor, model_pred: torch.Tensor, schedule: Schedule, index: int
    ) -> torch.Tensor:
        # DDIM with eta 0 and Euler are one step, in two scalings (Song et al., 2021).
        x0, noise = self._x0_and_noise(latents, model_pred, schedule, index)
        sigma = schedule.sigmas[index + 1]
        advanced = x0 + sigma * noise
        if self.variance_preserving:
            advanced = advanced / _spread(sigma)
        return advanced.to(latents.dtype)

    def predict_x0(
        self, latents: torch.Tensor, model_pred: torch.Tensor, schedule: Schedule, index: int
    ) -> torch.Tensor:
        return self._x0_and_noise(latents, model_pred, schedule, index)[0].to(latents.dtype)

    def _x0_and_noise(
        self, latents: torch.Tensor, model_pred: torch.Tensor, schedule: Schedule, index: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Both parts of x_sigma, float32, as the prediction tells them apart."""
        sigma = schedule.sigmas[index]
        noisy, prediction = latents.float(), model_pred.float()
        if self.variance_preserving:
            noisy = noisy * _spread(sigma)
        if self._scheduler.config.prediction_type == "epsilon":
            return noisy - sigma * prediction, prediction
        # v = (noise - sigma x0) / sqrt(1 + sigma²) (Salimans and Ho, 2022)
        x0 = (noisy / _spread(sigma) - sigma * prediction) / _spread(sigma)
        return x0, (noisy - x0) / sigma

    def decode(self, x0: torch.Tensor, image: pb.ImageSpec) -> torch.Tensor:  # noqa: ARG002
        return self.decoded(x0 / self.vae.config.scaling_factor)


def _spread(sigma: torch.Tensor) -> torch.Tensor:
    """Standard deviation of x_sigma, where that of x0 is 1."""
    return (1 + sigma**2).sqrt()
