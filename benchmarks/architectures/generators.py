"""The image generators. One function for each preset makes its networks, named as in its
pipeline."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    Flux2Transformer2DModel,
    FluxTransformer2DModel,
    SanaTransformer2DModel,
    UNet2DConditionModel,
    ZImageTransformer2DModel,
)

from benchmarks.architectures import autoencoders, text_encoders
from benchmarks.architectures.weights import bfloat16_on
from services.common.memory import MemoryLevel
from services.common.presets import load_presets
from services.generator.families.base import GeneratorFamily
from services.generator.memory import levels
from tests.generator.rows import ROWS

Networks = dict[str, Any]


def generator(name: str, device: torch.device, level: MemoryLevel = "fast") -> GeneratorFamily:
    """The preset's generator on ``device`` at this level. All of it, text encoders included, is
    made there, and then goes where the level has it."""
    (row,) = (row for row in ROWS if row.preset == name)
    tiny = row.load()
    with bfloat16_on(device):
        networks = NETWORKS[name]()
    parts = {**tiny.pipeline.components, **tiny.load_options, **networks}
    if name == "sana-1.6b":
        # The family reads the shift from the hub's sampler.
        parts["scheduler"] = DPMSolverMultistepScheduler(flow_shift=3.0)
    pipeline = type(tiny.pipeline)(**parts)
    family: Any = type(tiny)
    full: GeneratorFamily = family(pipeline, load_presets().generator(name), device)
    levels.apply(full, level)
    return full


def sd_1_4() -> Networks:
    unet = UNet2DConditionModel(
        sample_size=64,
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        block_out_channels=(320, 640, 1280, 1280),
        layers_per_block=2,
        attention_head_dim=8,
        cross_attention_dim=768,
    )
    return {
        "unet": unet,
        "vae": autoencoders.stable_diffusion(),
        "text_encoder": text_encoders.clip_l(),
    }


def sdxl_turbo() -> Networks:
    unet = UNet2DConditionModel(
        sample_size=64,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(320, 640, 1280),
        layers_per_block=2,
        transformer_layers_per_block=(1, 2, 10),
        attention_head_dim=(5, 10, 20),
        cross_attention_dim=2048,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    )
    return {
        "unet": unet,
        "vae": autoencoders.sdxl(),
        "text_encoder": text_encoders.clip_l(),
        "text_encoder_2": text_encoders.open_clip_bigg(),
    }


def flux_schnell() -> Networks:
    return _flux(guidance_embeds=False)


def flux_dev() -> Networks:
    return _flux(guidance_embeds=True)


def _flux(*, guidance_embeds: bool) -> Networks:
    transformer = FluxTransformer2DModel(
        in_channels=64,
        num_layers=19,
        num_single_layers=38,
        attention_head_dim=128,
        num_attention_heads=24,
        joint_attention_dim=4096,
        pooled_projection_dim=768,
        guidance_embeds=guidance_embeds,
        axes_dims_rope=(16, 56, 56),
    )
    return {
        "transformer": transformer,
        "vae": autoencoders.flux(),
        "text_encoder": text_encoders.clip_l(),
        "text_encoder_2": text_encoders.t5_xxl(),
    }


def flux2_klein() -> Networks:
    transformer = Flux2Transformer2DModel(
        in_channels=128,
        num_layers=5,
        num_single_layers=20,
        attention_head_dim=128,
        num_attention_heads=24,
        joint_attention_dim=3 * 2560,
        timestep_guidance_channels=256,
        mlp_ratio=3.0,
        axes_dims_rope=(32, 32, 32, 32),
        guidance_embeds=False,
    )
    return {
        "transformer": transformer,
        "vae": autoencoders.flux2(),
        "text_encoder": text_encoders.qwen3_4b(),
    }


def z_image_turbo() -> Networks:
    transformer = ZImageTransformer2DModel(
        in_channels=16,
        dim=3840,
        n_layers=30,
        n_refiner_layers=2,
        n_heads=30,
        n_kv_heads=30,
        cap_feat_dim=2560,
        axes_dims=[32, 48, 48],
        axes_lens=[1024, 512, 512],
    )
    # diffusers leaves the pad tokens uninitialised.
    transformer.x_pad_token.data.normal_(std=0.02)
    transformer.cap_pad_token.data.normal_(std=0.02)
    return {
        "transformer": transformer,
        "vae": autoencoders.flux(),
        "text_encoder": text_encoders.qwen3_4b().model,
    }


def sana_1_6b() -> Networks:
    return _sana(sample_size=16)


def sana_sprint() -> Networks:
    return _sana(
        sample_size=32,
        guidance_embeds=True,
        guidance_embeds_scale=0.1,
        qk_norm="rms_norm_across_heads",
    )


def _sana(**settings: Any) -> Networks:
    transformer = SanaTransformer2DModel(
        in_channels=32,
        out_channels=32,
        num_attention_heads=70,
        attention_head_dim=32,
        num_layers=20,
        num_cross_attention_heads=20,
        cross_attention_head_dim=112,
        cross_attention_dim=2240,
        caption_channels=2304,
        mlp_ratio=2.5,
        **settings,
    )
    return {
        "transformer": transformer,
        "vae": autoencoders.deep_compression(),
        "text_encoder": text_encoders.gemma2_2b(),
    }


#: These must be called inside ``bfloat16_on``.
NETWORKS: Mapping[str, Callable[[], Networks]] = {
    "flux-schnell": flux_schnell,
    "flux-dev": flux_dev,
    "sd-1.4": sd_1_4,
    "sana-1.6b": sana_1_6b,
    "sdxl-turbo": sdxl_turbo,
    "sana-sprint": sana_sprint,
    "flux2-klein": flux2_klein,
    "z-image-turbo": z_image_turbo,
}
