"""The text encoders of the generators."""

from __future__ import annotations

from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    Gemma2Config,
    Gemma2Model,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5EncoderModel,
)


def clip_l() -> CLIPTextModel:
    """The text encoder of openai/clip-vit-large-patch14, for SD 1.4, SDXL and FLUX.1."""
    return CLIPTextModel(
        CLIPTextConfig(
            hidden_size=768,
            intermediate_size=3072,
            num_hidden_layers=12,
            num_attention_heads=12,
            projection_dim=768,
        )
    )


def open_clip_bigg() -> CLIPTextModelWithProjection:
    """The text encoder of laion/CLIP-ViT-bigG-14, the second one of SDXL."""
    return CLIPTextModelWithProjection(
        CLIPTextConfig(
            hidden_size=1280,
            intermediate_size=5120,
            num_hidden_layers=32,
            num_attention_heads=20,
            projection_dim=1280,
            hidden_act="gelu",
        )
    )


def t5_xxl() -> T5EncoderModel:
    """The encoder of google/t5-v1_1-xxl, for FLUX.1."""
    return T5EncoderModel(
        T5Config(
            d_model=4096,
            d_kv=64,
            d_ff=10240,
            num_layers=24,
            num_heads=64,
            feed_forward_proj="gated-gelu",
        )
    )


def gemma2_2b() -> Gemma2Model:
    """google/gemma-2-2b-it, for Sana."""
    return Gemma2Model(
        Gemma2Config(
            vocab_size=256000,
            hidden_size=2304,
            intermediate_size=9216,
            num_hidden_layers=26,
            num_attention_heads=8,
            num_key_value_heads=4,
            head_dim=256,
        )
    )


def qwen3_4b() -> Qwen3ForCausalLM:
    """Qwen/Qwen3-4B, for FLUX.2 [klein] and Z-Image."""
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=151936,
            hidden_size=2560,
            intermediate_size=9728,
            num_hidden_layers=36,
            num_attention_heads=32,
            num_key_value_heads=8,
            head_dim=128,
            tie_word_embeddings=True,
        )
    )
