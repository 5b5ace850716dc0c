"""A tiny random Z-Image."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from transformers import Qwen3Model

from tests.generator.tiny import qwen3


def build(folder: Path) -> None:
    """Writes it in the hub's layout. The same bytes every time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        text_encoder = Qwen3Model(qwen3.config(layers=3))
        transformer = ZImageTransformer2DModel(
            in_channels=4,
            dim=32,
            n_layers=2,
            n_refiner_layers=1,
            n_heads=2,
            n_kv_heads=2,
            cap_feat_dim=16,
            axes_dims=[4, 6, 6],
            axes_lens=[1024, 64, 64],
        )
        # diffusers leaves the pad tokens uninitialised.
        transformer.x_pad_token.data.normal_()
        transformer.cap_pad_token.data.normal_()
        # Each block normalises what its layers give: beside small weights a small LoRA would turn
        # the image around, and nothing about it be linear.
        for name, parameter in transformer.named_parameters():
            if "attention.to_" in name or "feed_forward." in name:
                parameter.data *= 3
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(8, 8, 8, 8),
            latent_channels=4,
            norm_num_groups=4,
            scaling_factor=0.3611,
            shift_factor=0.1159,
            use_quant_conv=False,
            use_post_quant_conv=False,
        )
    ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=qwen3.tokenizer(),
        transformer=transformer,
    ).save_pretrained(folder)
