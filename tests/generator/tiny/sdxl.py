"""A tiny random SDXL: a U-Net of two levels, two CLIPs of three layers, a byte tokenizer."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    EulerAncestralDiscreteScheduler,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

_WIDTH = 16
_BYTES = sorted(ByteLevel.alphabet())
_VOCAB = [*_BYTES, *(f"{byte}</w>" for byte in _BYTES), "<|startoftext|>", "<|endoftext|>"]


def build(folder: Path) -> None:
    """Writes the model, in the hub's layout, with SDXL-turbo's own settings of the sampler."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipeline = StableDiffusionXLPipeline(
            vae=_vae(),
            text_encoder=CLIPTextModel(_clip()),
            text_encoder_2=CLIPTextModelWithProjection(_clip()),
            tokenizer=_tokenizer("<|endoftext|>"),
            tokenizer_2=_tokenizer("!"),
            unet=_unet(),
            scheduler=EulerAncestralDiscreteScheduler(
                beta_start=0.00085,
                beta_end=0.012,
                beta_schedule="scaled_linear",
                prediction_type="epsilon",
                steps_offset=1,
                timestep_spacing="trailing",
            ),
            add_watermarker=False,
        )
    pipeline.save_pretrained(folder)


def _tokenizer(pad: str) -> CLIPTokenizer:
    vocab = {token: index for index, token in enumerate(_VOCAB)}
    return CLIPTokenizer(vocab=vocab, merges=[], pad_token=pad, model_max_length=77)


def _clip() -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(_VOCAB),
        hidden_size=_WIDTH,
        intermediate_size=2 * _WIDTH,
        projection_dim=_WIDTH,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=77,
        initializer_factor=3.0,
        bos_token_id=len(_VOCAB) - 2,
        eos_token_id=len(_VOCAB) - 1,
        pad_token_id=len(_VOCAB) - 1,
    )


def _unet() -> UNet2DConditionModel:
    size_width = 8
    return UNet2DConditionModel(
        sample_size=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=8,
        transformer_layers_per_block=(1, 2),
        attention_head_dim=(2, 4),
        cross_attention_dim=2 * _WIDTH,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=size_width,
        projection_class_embeddings_input_dim=_WIDTH + 6 * size_width,
    )


def _vae() -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 16, 16),
        norm_num_groups=4,
        latent_channels=4,
        sample_size=64,
        scaling_factor=0.13025,
        force_upcast=True,
    )
