"""What the base model predicts where the LoRA trains: the anchor of a job."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from dualprocess.v1 import generator_pb2 as pb
from services.generator.families.base import Conditioning, GeneratorFamily, Schedule
from services.generator.recorded import RecordedSampling

#: Predictions for repeated noise are kept on the CPU, up to this many bytes.
_MOST_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True)
class Origin:
    """The input of a prediction: ``latents`` at the sampler's ``index``. ``noise`` identifies the
    noise that they began with, and the prompt."""

    latents: torch.Tensor
    conditioning: Conditioning
    index: int
    noise: tuple[int, int, int]


class BasePredictions:
    """x0 of the base model for the latents that a step trains at.

    At the sampler's first index latents are noise, whatever the LoRA: where the noise repeats, so
    does the prediction, and is made once. To be called while no adapter is active.
    """

    def __init__(
        self, family: GeneratorFamily, schedule: Schedule, optimizer: pb.OptimizerSpec
    ) -> None:
        self._sampling = RecordedSampling(family)
        self._schedule = schedule
        self._repeats = optimizer.noise_seeds < optimizer.steps
        self._kept: dict[tuple[int, int, int], torch.Tensor] = {}
        self._bytes = 0

    @torch.no_grad()
    def x0(self, origin: Origin) -> torch.Tensor:
        """Shaped as ``predict_x0`` gives it, on the latents' device."""
        latents, index = origin.latents, origin.index
        comes_again = self._repeats and index == 0
        if comes_again and origin.noise in self._kept:
            return self._kept[origin.noise].to(latents.device)
        x0 = self._sampling.x0(latents, origin.conditioning, self._schedule, index)
        if comes_again and self._bytes + x0.nbytes <= _MOST_BYTES:
            self._kept[origin.noise] = x0.to("cpu", copy=True)
            self._bytes += x0.nbytes
        return x0
