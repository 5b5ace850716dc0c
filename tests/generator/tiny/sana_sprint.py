"""A tiny random SANA-Sprint."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import SanaPipeline, SanaSprintPipeline, SanaTransformer2DModel, SCMScheduler

_SANA = Path(__file__).parents[2] / "fixtures" / "parity" / "models" / "sana-1.6b"


def build(folder: Path) -> None:
    """Writes it in the hub's layout. The same bytes every time.

    Its text encoder and autoencoder are those of the tiny Sana.
    """
    sana = SanaPipeline.from_pretrained(_SANA, transformer=None, dtype=torch.float32)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformer = SanaTransformer2DModel(
            in_channels=4,
            out_channels=4,
            num_attention_heads=4,
            attention_head_dim=8,
            num_layers=2,
            num_cross_attention_heads=4,
            cross_attention_head_dim=8,
            cross_attention_dim=32,
            caption_channels=32,
            sample_size=32,
            qk_norm="rms_norm_across_heads",
            guidance_embeds=True,
        )
    SanaSprintPipeline(
        tokenizer=sana.tokenizer,
        text_encoder=sana.text_encoder,
        vae=sana.vae,
        transformer=transformer,
        scheduler=SCMScheduler(),
    ).save_pretrained(folder)
