"""What every image generator does, one method an arrow of the data's way:

prompt → conditioning → latents → model_pred → x0 → image.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import diffusers
import numpy as np
import torch

from dualprocess.v1 import generator_pb2 as pb
from services.common.errors import InvalidInput
from services.common.memory import MemoryLevel
from services.common.presets import GeneratorPreset
from services.common.quantize import quantize
from services.common.reading import (
    TEXT_ENCODERS,
    Framed,
    Reader,
    TextEncoder,
    alone,
    fields,
    unread,
)
from services.common.torch_tensors import DTYPES_BY_NAME
from services.generator.adapters.switchboard import Switchboard
from services.generator.compiled import compile_blocks
from services.generator.memory.modulation import Modulation
from services.generator.memory.text_encoders import TextEncoders

#: The denoiser's arguments for one prompt, by their names; batch size 1.
Conditioning = Mapping[str, torch.Tensor]

#: How many encoded prompts stay on the device; a long one of FLUX has 4 MiB.
_ENCODINGS_KEPT = 64

_Text = tuple[str, str | None]


@dataclass(frozen=True)
class Schedule:
    """The noise levels of one sampling run. Sampling and training use the same one.

    ``timesteps`` [n] are the denoiser's inputs at index i. ``sigmas`` [n + 1], float32, is the
    noise level at index i; the last entry is that of the finished image. ``ends`` [n] is the level
    that the step at index i goes to, if that is not the next one.
    """

    image: pb.ImageSpec
    timesteps: torch.Tensor
    sigmas: torch.Tensor
    ends: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.timesteps)

    def end(self, index: int) -> torch.Tensor:
        return self.sigmas[index + 1] if self.ends is None else self.ends[index]


class GeneratorFamily(ABC):
    """One frozen image generator. Every method runs on the device's thread.

    A new one is in the host's memory: ``memory.levels.apply`` puts it on ``device``.
    """

    #: The pipeline's class in diffusers, and extra arguments for loading it.
    pipeline_class: ClassVar[str]
    load_options: ClassVar[Mapping[str, Any]] = {}
    #: Name of the denoiser in its pipeline, and so the prefix of LoRA keys in files.
    lora_prefix: ClassVar[str] = "transformer"
    text_encoder_names: ClassVar[tuple[str, ...]] = ("text_encoder",)
    #: `modelspec.architecture` of LoRA files.
    architecture: ClassVar[str]
    #: The prefix of a module's name in kohya-like LoRA files, if tools read such files of this
    #: family.
    kohya_prefix: ClassVar[str | None] = None
    #: Whether a guidance scale above 1 means classifier-free guidance.
    classifier_free: ClassVar[bool] = False

    def __init__(self, pipeline: Any, preset: GeneratorPreset, device: torch.device) -> None:
        self.name = preset.family
        self.pipeline = pipeline
        #: A diffusers model, with its own `config` and adapters.
        self.denoiser: Any = pipeline.components[self.lora_prefix]
        self.vae = pipeline.vae
        self.text_encoders = [pipeline.components[name] for name in self.text_encoder_names]
        self.preset = preset
        self.max_sequence_length = preset.max_sequence_length
        self.device = device
        self.dtype = DTYPES_BY_NAME[preset.dtype]
        for module in (self.denoiser, self.vae, *self.text_encoders):
            module.requires_grad_(False).eval()
        # Images are only ever made.
        self.vae.encoder = self.vae.quant_conv = None
        if preset.quantize is not None:
            for network in (self.denoiser, *self.text_encoders):
                quantize(network, preset.quantize, on=device, then=torch.device("cpu"))
        self.texts = TextEncoders(self.text_encoders, device)
        #: Layers whose outputs may stand for their weights, where a family has such.
        self.modulation: Modulation | None = None
        #: ``memory.levels.apply`` sets it, and puts everything in its place.
        self.memory: MemoryLevel = "fast"
        self.adapters = Switchboard(self.denoiser, device, self.dtype)
        if preset.compile_blocks:
            compile_blocks(self.denoiser)
        self._encodings: OrderedDict[_Text, Conditioning] = OrderedDict()

    @classmethod
    def load(cls, preset: GeneratorPreset, device: torch.device) -> Self:
        """Loads the preset's model, frozen, in its dtype, from a folder or a hub id, for
        ``device``."""
        pipeline = getattr(diffusers, cls.pipeline_class).from_pretrained(
            preset.model,
            revision=preset.revision,
            dtype=DTYPES_BY_NAME[preset.dtype],
            **cls.load_options,
        )
        return cls(pipeline, preset, device)

    def encode(self, prompt: str, image: pb.ImageSpec) -> Conditioning:
        """Like ``encode_all``, for one prompt."""
        return self.encode_all([prompt], image)[0]

    def encode_all(self, prompts: Sequence[str], image: pb.ImageSpec) -> list[Conditioning]:
        """The conditioning for each prompt, with ``image``'s negative prompt if it is used. The
        text encoders are brought to the device once, and only for new prompts; the last encodings
        are cached by their texts."""
        negative_prompt = image.negative_prompt if self.guided(image) else None
        texts = [(prompt, negative_prompt) for prompt in prompts]
        found = {text: self._encodings[text] for text in texts if text in self._encodings}
        missing = [text for text in dict.fromkeys(texts) if text not in found]
        if missing:
            with torch.no_grad(), self.texts.on_device():
                found |= {text: self._encode(*text) for text in missing}
        for text, conditioning in found.items():
            self._encodings[text] = conditioning
            self._encodings.move_to_end(text)
        while len(self._encodings) > _ENCODINGS_KEPT:
            self._encodings.popitem(last=False)
        return [found[text] for text in texts]

    @abstractmethod
    def _encode(self, prompt: str, negative_prompt: str | None) -> Conditioning:
        """Runs the text encoders, which are on the device meanwhile.

        Without a negative prompt (``None``) there is no classifier-free guidance.
        """

    def readers(self, *, negative: bool) -> list[Reader]:  # noqa: ARG002
        """How far each text encoder reads a prompt, or a negative prompt."""
        return [
            self._reader(encoder, self.max_sequence_length if encoder.by_preset else None)
            for encoder in TEXT_ENCODERS[self.preset.family]
        ]

    def unread(self, prompts: Sequence[str], image: pb.ImageSpec) -> list[str]:
        """A sentence for each prompt, and for the negative prompt if it is used, whose end no text
        encoder reads. Runs only tokenizers."""
        name = self.preset.name
        told = unread(name, self.readers(negative=False), fields(prompts))
        if self.guided(image):
            negative = [("image.negative_prompt", image.negative_prompt)]
            told += unread(name, self.readers(negative=True), negative)
        return told

    def _reader(
        self,
        encoder: TextEncoder,
        tokens: int | None,
        frame: Callable[[str], Framed] = alone,
    ) -> Reader:
        """``tokens`` counts control tokens; ``None`` is what the tokenizer says."""
        tokenizer = self.pipeline.components[encoder.tokenizer]

        def offsets(text: str) -> list[tuple[int, int]]:
            found: list[tuple[int, int]] = tokenizer(
                text, add_special_tokens=False, truncation=False, return_offsets_mapping=True
            )["offset_mapping"]
            return found

        most = tokenizer.model_max_length if tokens is None else tokens
        own = most - tokenizer.num_special_tokens_to_add()
        return Reader(encoder.name, own, offsets, frame, encoder.summary)

    def guided(self, image: pb.ImageSpec) -> bool:
        """Whether the denoiser runs for prompt and negative prompt (Ho and Salimans, 2022)."""
        return self.classifier_free and image.guidance_scale > 1

    @abstractmethod
    def noise(self, seeds: Sequence[int], image: pb.ImageSpec) -> torch.Tensor:
        """Starting latents, one row for each seed: what the plain pipeline draws for that seed."""

    def schedule(self, image: pb.ImageSpec) -> Schedule:
        """The plain pipeline's own schedule for this image. Raises ``InvalidInput`` for a number of
        steps that the model's sampler does not support."""
        steps = image.num_inference_steps
        try:
            with np.errstate(divide="ignore", invalid="ignore"):
                schedule = self._schedule(image)
        except (ValueError, IndexError) as error:
            raise InvalidInput(
                f"image.num_inference_steps: the model's sampler does not support {steps}: {error}"
            ) from error
        if schedule.sigmas.isnan().any():
            raise InvalidInput(
                f"image.num_inference_steps: the model's sampler has no noise levels for {steps}; "
                "write another number"
            )
        return schedule

    @abstractmethod
    def _schedule(self, image: pb.ImageSpec) -> Schedule:
        """Like ``schedule``; it may raise whatever the sampler raises."""

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

    def latent_map(self, x0: torch.Tensor, image: pb.ImageSpec) -> torch.Tensor:  # noqa: ARG002
        """x0, of any row of ``predict_x0``, as a map of positions in the autoencoder's normalised
        scale, where latents of images have a variance of about 1."""
        return x0

    @abstractmethod
    def decode(self, x0: torch.Tensor, image: pb.ImageSpec) -> torch.Tensor:
        """Images [batch, 3, height, width] in [-1, 1], not clamped, in the model's dtype,
        contiguous."""

    def decoded(self, latents_BCHW: torch.Tensor) -> torch.Tensor:
        """The image that the autoencoder makes of latents in its own scale."""
        images: torch.Tensor = self.vae.decode(latents_BCHW, return_dict=False)[0]
        # In the layout in which they are sent: a convolution rounds differently in another layout,
        # here and at the VLM.
        return images.contiguous()

    def sample(
        self, latents: torch.Tensor, conditioning: Conditioning, schedule: Schedule, until: int
    ) -> torch.Tensor:
        """Latents at index ``until``, from those at index 0. Without gradient."""
        with torch.no_grad():
            for index in range(until):
                model_pred = self.denoise(latents, conditioning, schedule, index)
                latents = self.advance(latents, model_pred, schedule, index)
        return latents
