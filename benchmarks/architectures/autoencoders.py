"""The autoencoders of the generators."""

from __future__ import annotations

from typing import Any

from diffusers import AutoencoderDC, AutoencoderKL, AutoencoderKLFlux2


def stable_diffusion() -> AutoencoderKL:
    return _kl(latent_channels=4, scaling_factor=0.18215, sample_size=512)


def sdxl() -> AutoencoderKL:
    return _kl(latent_channels=4, scaling_factor=0.13025, sample_size=1024, force_upcast=True)


def flux() -> AutoencoderKL:
    """The one of FLUX.1; Z-Image has the same."""
    return _kl(
        latent_channels=16,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        sample_size=1024,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def _kl(**settings: Any) -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        norm_num_groups=32,
        **settings,
    )


def flux2() -> AutoencoderKLFlux2:
    return AutoencoderKLFlux2(
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        latent_channels=32,
        norm_num_groups=32,
    )


def deep_compression() -> AutoencoderDC:
    """The one of Sana: dc-ae-f32c32-sana-1.0."""
    blocks = ("ResBlock",) * 3 + ("EfficientViTBlock",) * 3
    channels = (128, 256, 512, 512, 1024, 1024)
    multiscales = ((), (), (), (5,), (5,), (5,))
    return AutoencoderDC(
        latent_channels=32,
        attention_head_dim=32,
        encoder_block_types=blocks,
        decoder_block_types=blocks,
        encoder_block_out_channels=channels,
        decoder_block_out_channels=channels,
        encoder_layers_per_block=(2, 2, 2, 3, 3, 3),
        decoder_layers_per_block=(3, 3, 3, 3, 3, 3),
        encoder_qkv_multiscales=multiscales,
        decoder_qkv_multiscales=multiscales,
        downsample_block_type="conv",
        upsample_block_type="interpolate",
        decoder_norm_types="rms_norm",
        decoder_act_fns="silu",
        scaling_factor=0.41407,
    )
