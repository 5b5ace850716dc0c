"""Rectified flow: x_sigma = (1 - sigma) x0 + sigma noise, and the denoiser predicts
v = noise - x0 (Liu et al., 2022)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from services.common.presets import GeneratorPreset
from services.generator.families.base import GeneratorFamily, Schedule
from services.generator.families.sampler_settings import check_class, check_unknown, refusal


class FlowFamily(GeneratorFamily):
    """Euler sampling, in float32 as diffusers' ``FlowMatchEulerDiscreteScheduler`` does it; its
    settings for the noise levels are followed, since it makes them itself."""

    #: Settings that are allowed in the sampler's file, since neither pipeline nor sampler uses
    #: them.
    unread_settings: ClassVar[tuple[str, ...]] = ()

    def __init__(self, pipeline: Any, preset: GeneratorPreset, device: torch.device) -> None:
        check_class(preset, pipeline.scheduler, [FlowMatchEulerDiscreteScheduler.__name__])
        config = pipeline.scheduler.config
        check_unknown(preset, config, FlowMatchEulerDiscreteScheduler, known=self.unread_settings)
        if config.invert_sigmas:
            raise refusal(preset, "invert_sigmas", True, "so that time would run backwards")
        if config.stochastic_sampling:
            why = "so that an image would depend on more noise than its first"
            raise refusal(preset, "stochastic_sampling", True, why)
        super().__init__(pipeline, preset, device)

    def advance(
        self, latents: torch.Tensor, model_pred: torch.Tensor, schedule: Schedule, index: int
    ) -> torch.Tensor:
        step = schedule.sigmas[index + 1] - schedule.sigmas[index]
        return (latents.float() + step * model_pred).to(latents.dtype)

    def predict_x0(
        self, latents: torch.Tensor, model_pred: torch.Tensor, schedule: Schedule, index: int
    ) -> torch.Tensor:
        # x0 = x_sigma - sigma v
        return (latents.float() - schedule.sigmas[index] * model_pred).to(latents.dtype)
