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
from diffusers.schedulers import KarrasDiffusionSchedulers

from dualprocess.v1 import generator_pb2 as pb
from services.common.presets import GeneratorPreset, PresetError
from services.common.to_device import to_device
from services.generator.families.base import Conditioning, GeneratorFamily, Schedule
from services.generator.families.noise import drawn
from services.generator.families.sampler_settings import check_class, check_unknown

#: Samplers with the same noise levels: the family's own sampler replaces them, with their settings.
_REPLACED = [name for name in KarrasDiffusionSchedulers.__members__ if name != "EDMEulerScheduler"]


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
    #: Settings of the sampler that the model does not set, if they aren't diffusers' defaults.
    sampler_defaults: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, pipeline: Any, preset: GeneratorPreset, device: torch.device) -> None:
        check_class(preset, pipeline.scheduler, _REPLACED)
        config = pipeline.scheduler.config
        check_unknown(preset, config, self.sampler)
        pipeline.scheduler = self.sampler.from_config({**self.sampler_defaults, **config})
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
        return to_device(noise, self.device)

    def denoise(
        self, latents: torch.Tensor, conditioning: Conditioning, schedule: Schedule, index: int
    ) -> torch.Tensor:
        batch, branches = len(latents), len(conditioning["encoder_hidden_states"])
        rows = {
            name: tensor.repeat_interleave(batch, dim=0) for name, tensor in conditioning.items()
        }
        noisy = self._divided(latents, schedule.sigmas[index])
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
        """The U-Net's inputs besides the text, from the conditioning in the batch's rows."""

    def advance(
        self, latents: torch.Tensor, model_pred: torch.Tensor, schedule: Schedule, index: int
    ) -> torch.Tensor:
        # DDIM with eta 0 and Euler are one step, in two scalings (Song et al., 2021).
        x0, noise = self._x0_and_noise(latents, model_pred, schedule.sigmas[index])
        return self._mixed(x0, noise, schedule.end(index)).to(latents.dtype)

    def predict_x0(
        self, latents: torch.Tensor, model_pred: torch.Tensor, schedule: Schedule, index: int
    ) -> torch.Tensor:
        return self._x0_and_noise(latents, model_pred, schedule.sigmas[index])[0].to(latents.dtype)

    @property
    def predicts_noise(self) -> bool:
        """Or else v = (noise - sigma x0) / sqrt(1 + sigma²) (Salimans and Ho, 2022)."""
        return bool(self._scheduler.config.prediction_type == "epsilon")

    @abstractmethod
    def _divided(self, latents: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """The sampler's latents as the U-Net sees them."""

    @abstractmethod
    def _x0_and_noise(
        self, latents: torch.Tensor, model_pred: torch.Tensor, sigma: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Both parts of x_sigma, float32, as the prediction tells them apart."""

    @abstractmethod
    def _mixed(self, x0: torch.Tensor, noise: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """Both parts as the sampler's latents at this noise level."""

    def decode(self, x0: torch.Tensor, image: pb.ImageSpec) -> torch.Tensor:  # noqa: ARG002
        return self.decoded(x0 / self.vae.config.scaling_factor)


def spread(sigma: torch.Tensor) -> torch.Tensor:
    """Standard deviation of x_sigma, where that of x0 is 1."""
    return (1 + sigma**2).sqrt()
