"""A tiny random FLUX.2 [klein]."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKLFlux2,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
)
from transformers import Qwen3ForCausalLM

from tests.generator.tiny import qwen3


def build(folder: Path) -> None:
    """Writes it in the hub's layout. The same bytes every time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        # The pipeline reads the hidden states after 9, 18 and 27 layers.
        text_encoder = Qwen3ForCausalLM(qwen3.config(layers=28))
        transformer = Flux2Transformer2DModel(
            in_channels=16,
            num_layers=2,
            num_single_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=3 * 16,
            timestep_guidance_channels=32,
            axes_dims_rope=(4, 4, 4, 4),
            guidance_embeds=False,
        )
        vae = AutoencoderKLFlux2(
            block_out_channels=(8, 8, 8, 8),
            layers_per_block=1,
            latent_channels=4,
            norm_num_groups=4,
        )
        vae.bn.running_mean.normal_()
        vae.bn.running_var.uniform_(0.5, 2.0)
    Flux2KleinPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=qwen3.tokenizer(),
        transformer=transformer,
        is_distilled=True,
    ).save_pretrained(folder)
