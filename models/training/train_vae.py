"""Trains the autoencoder. `python -m models.training.train_vae --minutes 12`; a new run continues
the last one."""

from __future__ import annotations

import argparse
import math
import time
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch.nn import functional

from models.training import checkpoint
from models.training.muon import Muon
from models.training.variations import crowded, jittered, random_scenes, strange_backgrounds
from models.training.world import Floats, render

BATCH = 8
LEARNING_RATE = 3e-3
KL_WEIGHT = 3e-5


def build_vae() -> Any:
    """AutoencoderKL, f = 4, 4 latent channels."""
    vae = AutoencoderKL(
        block_out_channels=(16, 32, 64),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=64,
        use_quant_conv=False,
        use_post_quant_conv=False,
        force_upcast=False,
    )
    # Latents are nearly deterministic at first: with unit noise the first minutes teach nothing.
    with torch.no_grad():
        vae.encoder.conv_out.weight[4:] = 0
        vae.encoder.conv_out.bias[4:] = -5
    return vae


def training_images(rng: np.random.Generator, count: int) -> Floats:
    """(count, 64, 64, 3) in [0, 1]: mostly pictures of the world, and some that are close to it."""
    odd = count // 4
    scenes = random_scenes(rng, count - 2 * odd)
    strange = strange_backgrounds(jittered(random_scenes(rng, odd), rng), rng)
    crowd = jittered(random_scenes(rng, odd), rng)
    return np.concatenate([render(scenes), render(strange), crowded(crowd, rng)])


def to_model(images: Floats) -> torch.Tensor:
    """(N, 64, 64, 3) in [0, 1] → (N, 3, 64, 64) in [−1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))) * 2 - 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=12)
    seconds = parser.parse_args().minutes * 60
    torch.set_num_threads(1)
    torch.manual_seed(0)
    vae = build_vae()
    ends = [vae.encoder.conv_in.weight, vae.decoder.conv_out.weight]
    optimizer = Muon(vae.parameters(), LEARNING_RATE, elementwise=ends)
    step, spent = 0, 0.0
    if state := checkpoint.load("vae"):
        vae.load_state_dict(state["model"])
        if "optimizer" in state:
            optimizer.load_state_dict(state["optimizer"])
        step, spent = state["step"], state["spent"]
    print(f"{sum(p.numel() for p in vae.parameters()):,} parameters, from step {step}", flush=True)
    begin = time.monotonic() - spent
    while (spent := time.monotonic() - begin) < seconds:
        done = spent / seconds
        rate = LEARNING_RATE * min(1, (step + 1) / 30) * (0.5 + 0.5 * math.cos(math.pi * done))
        for group in optimizer.param_groups:
            group["lr"] = max(rate, 3e-5)
        images = to_model(training_images(np.random.default_rng((1, step)), BATCH))
        posterior = vae.encode(images).latent_dist
        decoded = vae.decode(posterior.sample()).sample
        error = decoded - images
        loss = error.abs().mean() + 4 * error.square().mean()
        loss = loss + KL_WEIGHT * posterior.kl().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        if step % 50 == 0:
            psnr = -10 * math.log10(functional.mse_loss(decoded, images).item() / 4)
            std = posterior.mean.std().item()
            print(
                f"{step} {spent:.0f}s loss {loss.item():.4f} psnr {psnr:.2f} std {std:.2f}",
                flush=True,
            )
        if step % 200 == 0:
            save(vae, optimizer, step, spent)
    save(vae, optimizer, step, spent)


def save(vae: Any, optimizer: torch.optim.Optimizer, step: int, spent: float) -> None:
    state = {"model": vae.state_dict(), "optimizer": optimizer.state_dict()}
    checkpoint.save("vae", {**state, "step": step, "spent": spent})


if __name__ == "__main__":
    main()
