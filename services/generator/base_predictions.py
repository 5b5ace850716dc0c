"""What the base model predicts where the LoRA trains: the anchor of a job."""

from __future__ import annotations

import torch

from dualprocess.v1 import generator_pb2 as pb
from services.generator.families.base import Conditioning, GeneratorFamily, Schedule

#: Predictions of noise that comes again are kept up to here, on the CPU.
_MOST_BYTES = 256 * 1024 * 1024


class BasePredictions:
    """x0 of the base model for the latents that a step trains at.

    At the sampler's first index latents are noise, whatever the LoRA: where the noise repeats, so
    does the prediction, and is made once. To be called while no adapter is active.
    """

    def __init__(
        self, family: GeneratorFamily, schedule: Schedule, optimizer: pb.OptimizerSpec
    ) -> None:
        self._family = family
        self._schedule = schedule
        self._noise_seeds = optimizer.noise_seeds
        self._repeats = optimizer.noise_seeds < optimizer.steps
        self._kept: dict[tuple[int, int, int], torch.Tensor] = {}
        self._bytes = 0

    @torch.no_grad()
    def x0(
        self,
        latents: torch.Tensor,
        conditioning: Conditioning,
        index: int,
        *,
        prompt: int,
        step: int,
        micro_step: int,
    ) -> torch.Tensor:
        """Shaped as ``predict_x0`` gives it, on the latents' device."""
        comes_again = self._repeats and index == 0
        place = (prompt, step % self._noise_seeds, micro_step)
        if comes_again and place in self._kept:
            return self._kept[place].to(latents.device)
        model_pred = self._family.denoise(latents, conditioning, self._schedule, index)
        x0 = self._family.predict_x0(latents, model_pred, self._schedule, index)
        if comes_again and self._bytes + x0.nbytes <= _MOST_BYTES:
            self._kept[place] = x0.to("cpu", copy=True)
            self._bytes += x0.nbytes
        return x0
