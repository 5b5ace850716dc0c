"""Rectified flow: x_sigma = (1 - sigma) x0 + sigma noise, and the denoiser predicts
v = noise - x0 (Liu et al., 2022)."""

from __future__ import annotations

import torch

from services.generator.families.base import GeneratorFamily, Schedule


class FlowFamily(GeneratorFamily):
    """Euler sampling, in float32 as diffusers' ``FlowMatchEulerDiscreteScheduler`` does it."""

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
