"""Trains the image transformer and its text encoders on the frozen autoencoder's latents.

`python -m models.training.train_flux --minutes 60`; a new run continues the last one. Flow
matching, x_σ = (1 − σ) x0 + σ noise, v = noise − x0. Nearly all of each batch is at σ = 1. There a
scene is a function of caption and noise (see `world.ranks_from_noise`), so one step has one right
answer.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, FluxPipeline, FluxTransformer2DModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from models.training import checkpoint
from models.training.captions import caption, random_said, shuffled_order
from models.training.muon import Muon
from models.training.tokenizers import T5_LENGTH, clip_tokenizer, t5_tokenizer
from models.training.train_vae import build_vae, to_model
from models.training.world import (
    LATENT_SHAPE,
    SIDE,
    Bools,
    Floats,
    Ints,
    Scenes,
    classes_from_ranks,
    compose,
    paint_background,
    random_classes,
    ranks_from_noise,
    render,
    signed_distance,
    with_ranks_of,
)

BATCH = 32
LEARNING_RATE = 2e-3
BELOW_ONE = 0.06
RECENT = 4000
WIDTH = 128
CLIP_LENGTH = 77


def build_denoiser() -> tuple[Any, Any, Any]:
    """FluxTransformer2DModel, CLIPTextModel, T5EncoderModel, freshly initialised."""
    transformer = FluxTransformer2DModel(
        in_channels=16,
        num_layers=2,
        num_single_layers=4,
        attention_head_dim=32,
        num_attention_heads=4,
        joint_attention_dim=64,
        pooled_projection_dim=64,
        guidance_embeds=False,
        axes_dims_rope=(8, 12, 12),
    )
    clip = clip_tokenizer()
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(clip),
            hidden_size=64,
            intermediate_size=128,
            projection_dim=64,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=CLIP_LENGTH,
            bos_token_id=clip.bos_token_id,
            eos_token_id=clip.eos_token_id,
            pad_token_id=clip.pad_token_id,
        )
    )
    text_encoder_2 = T5EncoderModel(
        T5Config(
            vocab_size=len(t5_tokenizer()),
            d_model=64,
            d_kv=16,
            d_ff=128,
            num_layers=2,
            num_heads=4,
            feed_forward_proj="gated-gelu",
            dropout_rate=0.0,
            is_encoder_decoder=False,
            use_cache=False,
        )
    )
    return transformer, text_encoder, text_encoder_2


def load_vae() -> Any:
    """The trained autoencoder, frozen, in evaluation mode."""
    state = checkpoint.load("vae")
    if state is None:
        raise FileNotFoundError("train the autoencoder first: python -m models.training.train_vae")
    vae = build_vae()
    vae.load_state_dict(state["model"])
    return vae.eval().requires_grad_(False)


@cache
def latent_statistics() -> tuple[float, float]:
    """Mean and standard deviation of the frozen autoencoder's latents on the world."""
    rng = np.random.default_rng(3)
    noise = rng.standard_normal((256, *LATENT_SHAPE), dtype=np.float32)
    ranks = ranks_from_noise(noise)
    with torch.no_grad():
        latents = load_vae().encode(to_model(render(compose(classes_from_ranks(ranks), ranks))))
    mean = latents.latent_dist.mean
    return float(mean.mean()), float(mean.std())


@dataclass(frozen=True)
class Lesson:
    """N scenes: what their captions state, the noise that decides the other attributes, and the
    latents."""

    classes: Ints  # (N, 8)
    said: Bools  # (N, 8)
    noise: Floats  # (N, 4, 16, 16)
    latents: Tensor  # (N, 4, 16, 16) normalised
    weights: Tensor  # (N, 1, 16, 16)

    def joined(self, other: Lesson, keep: int) -> Lesson:
        """The last `keep` of both together."""
        return Lesson(
            np.concatenate([self.classes, other.classes])[-keep:],
            np.concatenate([self.said, other.said])[-keep:],
            np.concatenate([self.noise, other.noise])[-keep:],
            torch.cat([self.latents, other.latents])[-keep:],
            torch.cat([self.weights, other.weights])[-keep:],
        )

    def sampled(self, rng: np.random.Generator, count: int) -> Lesson:
        """`count` of them, each with new noise that has the same ranks."""
        which = rng.integers(len(self.classes), size=count)
        fresh = rng.standard_normal((count, *LATENT_SHAPE), dtype=np.float32)
        noise = with_ranks_of(fresh, self.noise[which])
        return Lesson(
            self.classes[which], self.said[which], noise, self.latents[which], self.weights[which]
        )


def draw(rng: np.random.Generator, count: int, vae: Any) -> Lesson:
    """New scenes: a caption states some attributes, noise decides the others."""
    mean, std = latent_statistics()
    noise = rng.standard_normal((count, *LATENT_SHAPE), dtype=np.float32)
    ranks = ranks_from_noise(noise)
    said = random_said(rng, count)
    classes = np.where(said, random_classes(rng, count), classes_from_ranks(ranks))
    scenes = compose(classes, ranks, said)
    with torch.no_grad():
        latents = vae.encode(to_model(render(scenes))).latent_dist.mean
    return Lesson(classes, said, noise, (latents - mean) / std, pixel_weights(scenes))


def pixel_weights(scenes: Scenes) -> Tensor:
    """(N, 1, 16, 16) mean 1: shape, outline and horizon weigh more than sky and ground."""
    distance = signed_distance(
        scenes.kind, scenes.radius, scenes.center_x, scenes.center_y, scenes.thickness
    )
    near = np.clip((scenes.thickness[:, None, None] + 3 - distance) / 2, 0, 1)
    ends = paint_background(np.zeros_like(scenes.sky), np.ones_like(scenes.sky), scenes.horizon)
    rows = np.abs(np.gradient(ends[..., 0], axis=1)) > 0
    weights = torch.from_numpy(1 + 4 * near + 1.0 * rows).float()[:, None]
    weights = nn.functional.avg_pool2d(weights, SIDE // LATENT_SHAPE[-1])
    return weights / weights.mean(dim=(1, 2, 3), keepdim=True)


def pack(latents: Tensor) -> Tensor:
    """(N, 4, 16, 16) → (N, 64, 16), as FluxPipeline does."""
    packed: Tensor = FluxPipeline._pack_latents(latents, len(latents), *LATENT_SHAPE)
    return packed


def latents_to_images(vae: Any, packed: Tensor) -> Tensor:
    """(N, 64, 16) normalised latents → (N, 3, 64, 64) images, about [−1, 1]."""
    mean, std = latent_statistics()
    latents = FluxPipeline._unpack_latents(packed, SIDE, SIDE, SIDE // LATENT_SHAPE[-1])
    images: Tensor = vae.decode(latents * std + mean)[0]
    return images


class Denoiser(nn.Module):
    """Transformer and text encoders, called as FluxPipeline calls them."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer, self.text_encoder, self.text_encoder_2 = build_denoiser()
        self.clip, self.t5 = clip_tokenizer(), t5_tokenizer()
        height = LATENT_SHAPE[-1] // 2
        ids = FluxPipeline._prepare_latent_image_ids(
            1, height, height, torch.device("cpu"), torch.float32
        )
        self.register_buffer("image_ids", ids, persistent=False)

    def forward(self, packed: Tensor, sigma: Tensor, captions: list[str]) -> Tensor:
        """(N, 64, 16) noisy latents, (N,) σ → v of the same shape."""
        options = {"padding": "max_length", "truncation": True, "return_tensors": "pt"}
        t5 = self.t5(captions, max_length=T5_LENGTH, **options).input_ids
        # CLIP is causal and pooled at the first end token, so shorter padding changes nothing.
        clip = self.clip(captions, padding="longest", return_tensors="pt").input_ids
        velocity: Tensor = self.transformer(
            hidden_states=packed,
            timestep=sigma,
            encoder_hidden_states=self.text_encoder_2(t5)[0],
            pooled_projections=self.text_encoder(clip).pooler_output,
            txt_ids=torch.zeros(T5_LENGTH, 3),
            img_ids=self.image_ids,
            return_dict=False,
        )[0]
        return velocity


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60, help="of training, all runs together")
    seconds = parser.parse_args().minutes * 60
    torch.set_num_threads(1)
    torch.manual_seed(0)
    vae: AutoencoderKL = load_vae()
    mean, std = latent_statistics()
    model = Denoiser()
    elementwise = [
        model.text_encoder.get_input_embeddings().weight,
        model.text_encoder_2.get_input_embeddings().weight,
        model.transformer.x_embedder.weight,
        model.transformer.proj_out.weight,
    ]
    optimizer = Muon(model.parameters(), LEARNING_RATE, elementwise)
    step, spent = 0, 0.0
    if state := checkpoint.load("flux"):
        model.load_state_dict(state["model"])
        if "optimizer" in state:
            optimizer.load_state_dict(state["optimizer"])
        step, spent = state["step"], state["spent"]
    size = sum(p.numel() for p in model.parameters())
    print(f"{size:,} parameters, latents {mean:.3f} ± {std:.3f}, step {step}", flush=True)

    recent: Lesson | None = None
    begin, running = time.monotonic() - spent, 0.0
    while (spent := time.monotonic() - begin) < seconds:
        rate = LEARNING_RATE * min(1, (step + 1) / 100, 0.02 + 2 * (1 - spent / seconds))
        for group in optimizer.param_groups:
            group["lr"] = rate
        rng = np.random.default_rng((4, step))
        # Rendering and encoding cost as much as a third of a step, so each scene is used a few
        # times, with other noise and another word order.
        drawn = draw(rng, BATCH // 4 if recent else BATCH, vae)
        recent = recent.joined(drawn, RECENT) if recent else drawn
        lesson = recent.sampled(rng, BATCH)
        clean, noise = lesson.latents, torch.from_numpy(lesson.noise)
        captions = [
            caption(c, s, shuffled_order(rng))
            for c, s in zip(lesson.classes, lesson.said, strict=True)
        ]
        sigma = torch.ones(BATCH)
        below = torch.from_numpy(rng.random(BATCH) < BELOW_ONE)
        sigma[below] = torch.from_numpy(rng.uniform(0.05, 1, int(below.sum()))).float()
        at = sigma[:, None, None, None]
        noisy = (1 - at) * clean + at * noise
        velocity = model(pack(noisy), sigma, captions)
        error = (velocity - pack(noise - clean)).square()
        weights = pack(lesson.weights.expand(-1, LATENT_SHAPE[0], -1, -1))
        loss = (error * weights).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        running += error.mean().item()
        if step % 50 == 0:
            print(f"{step} {spent:.0f}s error {running / 50:.4f}", flush=True)
            running = 0.0
        if step % 200 == 0:
            save(model, optimizer, step, spent)
    save(model, optimizer, step, spent)


def save(model: nn.Module, optimizer: torch.optim.Optimizer, step: int, spent: float) -> None:
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    checkpoint.save("flux", {**state, "step": step, "spent": spent})


if __name__ == "__main__":
    main()
