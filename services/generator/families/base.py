"""What every image generator does, one method an arrow of the data's way:

prompt → conditioning → latents → model_pred → x0 → image.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch

from dualprocess.v1 import generator_pb2 as pb
from services.common.presets import GeneratorPreset

#: What the denoiser receives for one prompt, by its own argument names; batch size 1.
Conditioning = Mapping[str, torch.Tensor]

#: Encoded prompts that stay on the device: a long one of FLUX is 4 MiB.
_ENCODINGS_KEPT = 64

_Text = tuple[str, str | None]
_Encodings = OrderedDict[_Text, Conditioning]


@dataclass(frozen=True)
class Schedule:
    """The noise levels of one sampling run. Sampling and training use the same one.

    ``timesteps`` [n] is what the denoiser is told at index i. ``sigmas`` [n + 1], float32, is the
    noise level at index i; the last entry is that of the finished image.
    """

    image: pb.ImageSpec
    timesteps: torch.Tensor
    sigmas: torch.Tensor

    def __len__(self) -> int:
        return len(self.timesteps)


class GeneratorFamily(ABC):
    """One frozen image generator, loaded on a device. Every method runs on the device's thread."""

    #: Prefix of LoRA keys in files: the name of the denoiser in its pipeline.
    lora_prefix: ClassVar[str]
    #: `modelspec.architecture` of LoRA files.
    architecture: ClassVar[str]
    #: Whether a guidance scale above 1 means classifier-free guidance.
    classifier_free: ClassVar[bool] = False

    pipeline: Any
    #: A diffusers model, with its own `config` and adapters.
    denoiser: Any

    @classmethod
    @abstractmethod
    def load(cls, preset: GeneratorPreset, device: torch.device) -> Self:
        """Loads the preset's model, frozen, in its dtype, from a folder or a hub id."""

    def encode(self, prompt: str, image: pb.ImageSpec) -> Conditioning:
        """What the denoiser is told of a prompt, and of ``image``'s negative prompt where it takes
        part. Encodings are kept by their content."""
        cache: OrderedDict[_Text, Conditioning] = self.__dict__.setdefault(
            "_encoded", OrderedDict()
        )
        text = (prompt, image.negative_prompt if self.guided(image) else None)
        if text not in cache:
            cache[text] = self._encode(*text)
        cache.move_to_end(text)
        if len(cache) > _ENCODINGS_KEPT:
            cache.popitem(last=False)
        return cache[text]

    @abstractmethod
    def _encode(self, prompt: str, negative_prompt: str | None) -> Conditioning:
        """Runs the text encoders. They don't stay on the device afterwards.

        Without a negative prompt (``None``) there is no classifier-free guidance.
        """

    def guided(self, image: pb.ImageSpec) -> bool:
        """Whether the denoiser runs for prompt and negative prompt (Ho and Salimans, 2022)."""
        return self.classifier_free and image.guidance_scale > 1

    @abstractmethod
    def noise(self, seeds: Sequence[int], image: pb.ImageSpec) -> torch.Tensor:
        """Starting latents, one row a seed: what the plain pipeline draws for that seed."""

    @abstractmethod
    def schedule(self, image: pb.ImageSpec) -> Schedule:
        """The plain pipeline's own schedule for this image."""

    @abstractmethod
    def denoise(
        self, latents: torch.Tensor, conditioning: Conditioning, schedule: Schedule, index: int
    ) -> torch.Tensor:
        """The denoiser's prediction at ``index``, guidance applied. Shaped as ``latents``."""

    @abstractmethod
    def advance(
        self, latents: torch.Tensor, model_pred: torch.Tensor, schedule: Schedule, index: int
    ) -> torch.Tensor:
        """Latents at ``index + 1``: the sampler's step."""

    @abstractmethod
    def predict_x0(
        self, latents: torch.Tensor, model_pred: torch.Tensor, schedule: Schedule, index: int
    ) -> torch.Tensor:
        """Clean latents that the prediction at ``index`` implies. Shaped as ``latents``."""

    @abstractmethod
    def decode(self, x0: torch.Tensor, image: pb.ImageSpec) -> torch.Tensor:
        """Images [batch, 3, height, width] in [-1, 1], not clamped, in the model's dtype,
        contiguous."""

    def sample(
        self, latents: torch.Tensor, conditioning: Conditioning, schedule: Schedule, until: int
    ) -> torch.Tensor:
        """Latents at index ``until``, from those at index 0. Without gradient."""
        with torch.no_grad():
            for index in range(until):
                model_pred = self.denoise(latents, conditioning, schedule, index)
                latents = self.advance(latents, model_pred, schedule, index)
        return latents
