"""The exported pair, loaded and used as in the service: to sample, to ask, to learn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import FluxPipeline
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from transformers import AutoTokenizer, Idefics2ForConditionalGeneration

from models.training.questions import POSTFIX
from models.training.tokenizers import AROUND_IMAGE, IMAGE, T5_LENGTH, chat
from models.training.visual_prompts import Drawing
from models.training.world import LATENT_SHAPE, SIDE

MODELS = Path(__file__).parents[1]


@dataclass(frozen=True)
class Conditioning:
    """A prompt's encodings: (1, 32, 64), (1, 64)."""

    prompt_embeds: Tensor
    pooled: Tensor


class Generator:
    """tiny-flux: noise → image in one step."""

    def __init__(self, folder: Path = MODELS / "tiny-flux") -> None:
        self.pipeline: Any = FluxPipeline.from_pretrained(folder)
        self.transformer = self.pipeline.transformer.requires_grad_(False).eval()
        self.vae = self.pipeline.vae.requires_grad_(False).eval()

    @torch.no_grad()
    def encode(self, prompt: str) -> Conditioning:
        embeds, pooled, _ = self.pipeline.encode_prompt(
            prompt, prompt_2=None, max_sequence_length=T5_LENGTH
        )
        return Conditioning(embeds, pooled)

    def decode_step(self, conditioning: Conditioning, noise: Tensor) -> Tensor:
        """(N, 4, 16, 16) noise → (N, 3, 64, 64) images, about [−1, 1]; σ = 1, one step."""
        count, channels, height, width = noise.shape
        packed = self.pipeline._pack_latents(noise, count, channels, height, width)
        ids = self.pipeline._prepare_latent_image_ids(
            1, height // 2, width // 2, torch.device("cpu"), torch.float32
        )
        velocity = self.transformer(
            hidden_states=packed,
            timestep=torch.ones(count),
            encoder_hidden_states=conditioning.prompt_embeds.expand(count, -1, -1),
            pooled_projections=conditioning.pooled.expand(count, -1),
            txt_ids=torch.zeros(T5_LENGTH, 3),
            img_ids=ids,
            return_dict=False,
        )[0]
        side = self.vae.config.sample_size
        latents = self.pipeline._unpack_latents(
            packed - velocity, side, side, self.pipeline.vae_scale_factor
        )
        config = self.vae.config
        image: Tensor = self.vae.decode(latents / config.scaling_factor + config.shift_factor)[0]
        return image

    @torch.no_grad()
    def sample(self, prompt: str, seeds: Sequence[int]) -> NDArray[np.uint8]:
        """(N, 64, 64, 3), with the active adapter, if there is one."""
        return images_to_uint8(self.decode_step(self.encode(prompt), noise_of(seeds)))

    @torch.no_grad()
    def reconstruct(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(N, 64, 64, 3) through the autoencoder and back."""
        return images_to_uint8(
            self.vae.decode(self.vae.encode(uint8_to_images(images)).latent_dist.mean)[0]
        )


class Vlm:
    """tiny-idefics2: images and a question → log-probabilities of the answer."""

    def __init__(self, folder: Path = MODELS / "tiny-idefics2") -> None:
        self.model: Any = Idefics2ForConditionalGeneration.from_pretrained(folder)
        self.model.requires_grad_(False).eval()
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self.image_tokens = self.model.config.perceiver_config.resampler_n_latents

    def loss(
        self,
        images: Tensor,
        question: str,
        answer: str,
        visual_prompt: Drawing | None = None,
    ) -> Tensor:
        """(N, 3, 64, 64) images in [−1, 1] → (N,) cross-entropy of the answer."""
        if visual_prompt is not None:
            images = overlay_solid(images, visual_prompt)
        text = self._expanded(question)
        prefix = self.tokenizer(text)["input_ids"]
        ids = self.tokenizer(text + answer)["input_ids"]
        expected = torch.tensor(ids[len(prefix) :])
        logits = self.model(
            input_ids=torch.tensor([ids]).expand(len(images), -1),
            attention_mask=torch.ones(len(images), len(ids), dtype=torch.long),
            pixel_values=images[:, None],
        ).logits[:, len(prefix) - 1 : -1]
        losses = functional.cross_entropy(
            logits.transpose(1, 2), expected.expand(len(images), -1), reduction="none"
        )
        return losses.mean(1)

    @torch.no_grad()
    def probability(
        self,
        images: NDArray[np.uint8],
        question: str,
        answer: str,
        visual_prompt: Drawing | None = None,
    ) -> NDArray[np.float32]:
        """(N, 64, 64, 3) → (N,) probability of the answer."""
        tensor = uint8_to_images(images)
        return np.asarray(torch.exp(-self.loss(tensor, question, answer, visual_prompt)).numpy())

    @torch.no_grad()
    def answer(self, images: NDArray[np.uint8], questions: Sequence[str]) -> list[str]:
        """The most likely token of the whole vocabulary after each image's own question."""
        texts = [self._expanded(question) for question in questions]
        inputs = self.tokenizer(texts, padding=True, return_tensors="pt")
        logits = self.model(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            pixel_values=uint8_to_images(images)[:, None],
        ).logits[:, -1]
        return [self.tokenizer.decode(i) for i in logits.argmax(1).tolist()]

    def _expanded(self, question: str) -> str:
        image = AROUND_IMAGE + IMAGE * self.image_tokens + AROUND_IMAGE
        return chat(f"{question} {POSTFIX}").replace(IMAGE, image)


def noise_of(seeds: Sequence[int]) -> Tensor:
    """(N, 4, 16, 16), as FluxPipeline draws it from a CPU generator of each seed."""
    draws = [
        torch.randn((1, *LATENT_SHAPE), generator=torch.Generator("cpu").manual_seed(seed))
        for seed in seeds
    ]
    return torch.cat(draws)


def overlay_solid(images: Tensor, drawing: Drawing) -> Tensor:
    """Covers images in [−1, 1] with the pixels of the drawing (64, 64, 3) that aren't pure
    white."""
    drawn = torch.from_numpy(drawing.astype(np.float32)).permute(2, 0, 1) / 127.5 - 1
    clear = torch.from_numpy((drawing == 255).all(axis=-1))
    return torch.where(clear, images, drawn)


def clamp_through(images: Tensor) -> Tensor:
    """Clamps to [−1, 1] with the gradient of the identity."""
    return images + (images.clamp(-1, 1) - images).detach()


def images_to_uint8(images: Tensor) -> NDArray[np.uint8]:
    """(N, 3, 64, 64) about [−1, 1] → (N, 64, 64, 3) uint8."""
    pixels = (images.clamp(-1, 1) * 127.5 + 127.5).round().permute(0, 2, 3, 1)
    return np.asarray(pixels.to(torch.uint8).numpy())


def uint8_to_images(images: NDArray[np.uint8]) -> Tensor:
    """(N, 64, 64, 3) uint8 → (N, 3, 64, 64) in [−1, 1]."""
    assert images.shape[1:] == (SIDE, SIDE, 3)
    return torch.from_numpy(images.astype(np.float32)).permute(0, 3, 1, 2) / 127.5 - 1
