"""The VLMs. One function for each preset makes its config, and the settings of its image
processor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import transformers
from transformers import (
    Gemma3Config,
    Idefics2Config,
    LlavaConfig,
    Qwen2_5_VLConfig,
    Qwen3VLConfig,
    SmolVLMConfig,
)

from benchmarks.architectures.weights import bfloat16_on
from services.common.presets import load_presets
from services.vlm.families.base import VlmFamily
from tests.vlm.rows import ROWS

#: SigLIP-so400m, without the sizes of image and patch.
_SIGLIP = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
}


def vlm(name: str, device: torch.device) -> VlmFamily:
    """The preset's VLM on ``device``."""
    (row,) = (row for row in ROWS if row.preset == name)
    tiny = row.load()
    model = network(name, tiny.model.config.image_token_id, tiny.model_class, device)
    processor = tiny.image_processor
    image_processor = type(processor)(
        image_mean=processor.image_mean, image_std=processor.image_std, **SIZES[name]
    )
    return type(tiny)(model, tiny.tokenizer, image_processor, load_presets().vlm(name), device)


def network(name: str, image_token_id: int, model_class: str, device: torch.device) -> Any:
    """Only the model, without its processor."""
    config = CONFIGS[name](image_token_id)
    with bfloat16_on(device):
        return getattr(transformers, model_class)(config)


def idefics2(image_token_id: int) -> Idefics2Config:
    return Idefics2Config(
        image_token_id=image_token_id,
        vision_config={**_SIGLIP, "image_size": 980, "patch_size": 14},
        perceiver_config={
            "hidden_size": 4096,
            "resampler_n_latents": 64,
            "resampler_depth": 3,
            "resampler_n_heads": 16,
            "resampler_head_dim": 96,
            "num_key_value_heads": 4,
        },
        text_config={
            "model_type": "mistral",
            "vocab_size": 32003,
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "sliding_window": 4096,
            "max_position_embeddings": 32768,
            "pad_token_id": 0,
        },
    )


def qwen2_5_vl(image_token_id: int) -> Qwen2_5_VLConfig:
    return Qwen2_5_VLConfig(
        image_token_id=image_token_id,
        vision_config={
            "depth": 32,
            "hidden_size": 1280,
            "intermediate_size": 3420,
            "num_heads": 16,
            "out_hidden_size": 3584,
            "patch_size": 14,
            "window_size": 112,
            "fullatt_block_indexes": [7, 15, 23, 31],
        },
        text_config={
            "vocab_size": 152064,
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "max_position_embeddings": 128000,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1000000.0,
                "mrope_section": [16, 24, 24],
            },
        },
        tie_word_embeddings=False,
    )


def gemma3(image_token_id: int) -> Gemma3Config:
    return Gemma3Config(
        image_token_index=image_token_id,
        mm_tokens_per_image=256,
        vision_config={
            **_SIGLIP,
            "model_type": "siglip_vision_model",
            "image_size": 896,
            "patch_size": 14,
            "vision_use_head": False,
        },
        text_config={
            "vocab_size": 262208,
            "hidden_size": 2560,
            "intermediate_size": 10240,
            "num_hidden_layers": 34,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "head_dim": 256,
            "sliding_window": 1024,
        },
    )


def llava_1_5(image_token_id: int) -> LlavaConfig:
    return LlavaConfig(
        image_token_id=image_token_id,
        image_seq_length=576,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        vision_config={
            "model_type": "clip_vision_model",
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "image_size": 336,
            "patch_size": 14,
            "projection_dim": 768,
        },
        text_config={
            "model_type": "llama",
            "vocab_size": 32064,
            "hidden_size": 4096,
            "intermediate_size": 11008,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "max_position_embeddings": 4096,
        },
    )


def pixtral(image_token_id: int) -> LlavaConfig:
    return LlavaConfig(
        image_token_id=image_token_id,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        vision_config={
            "model_type": "pixtral",
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "image_size": 1024,
            "patch_size": 16,
        },
        text_config={
            "model_type": "mistral",
            "vocab_size": 131072,
            "hidden_size": 5120,
            "intermediate_size": 14336,
            "num_hidden_layers": 40,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "sliding_window": None,
            "max_position_embeddings": 1024000,
        },
    )


def qwen3_vl(image_token_id: int) -> Qwen3VLConfig:
    return Qwen3VLConfig(
        image_token_id=image_token_id,
        vision_config={
            "depth": 24,
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_heads": 16,
            "out_hidden_size": 2560,
            "num_position_embeddings": 2304,
            "deepstack_visual_indexes": [5, 11, 17],
        },
        text_config={
            "vocab_size": 151936,
            "hidden_size": 2560,
            "intermediate_size": 9728,
            "num_hidden_layers": 36,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "max_position_embeddings": 262144,
            "tie_word_embeddings": True,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 5000000.0,
                "mrope_interleaved": True,
                "mrope_section": [24, 20, 20],
            },
        },
        tie_word_embeddings=True,
    )


def smolvlm2(image_token_id: int) -> SmolVLMConfig:
    return SmolVLMConfig(
        image_token_id=image_token_id,
        scale_factor=3,
        vision_config={**_SIGLIP, "image_size": 384, "patch_size": 14},
        text_config={
            "model_type": "llama",
            "vocab_size": 49280,
            "hidden_size": 2048,
            "intermediate_size": 8192,
            "num_hidden_layers": 24,
            "num_attention_heads": 32,
            "num_key_value_heads": 32,
            "head_dim": 64,
            "max_position_embeddings": 8192,
        },
    )


CONFIGS: Mapping[str, Callable[[int], Any]] = {
    "idefics2": idefics2,
    "qwen2.5-vl": qwen2_5_vl,
    "gemma3": gemma3,
    "llava-1.5": llava_1_5,
    "pixtral": pixtral,
    "qwen3-vl": qwen3_vl,
    "smolvlm2": smolvlm2,
}

#: The size to which the image processor scales an image; it decides the number of tokens.
SIZES: Mapping[str, Mapping[str, Any]] = {
    "idefics2": {"size": {"shortest_edge": 378, "longest_edge": 980}},
    "qwen2.5-vl": {
        "size": {"shortest_edge": 3136, "longest_edge": 12845056},
        "patch_size": 14,
        "merge_size": 2,
    },
    "gemma3": {"size": {"height": 896, "width": 896}},
    "llava-1.5": {
        "size": {"shortest_edge": 336},
        "crop_size": {"height": 336, "width": 336},
    },
    "pixtral": {
        "size": {"longest_edge": 1024},
        "patch_size": {"height": 16, "width": 16},
    },
    "qwen3-vl": {
        "size": {"shortest_edge": 65536, "longest_edge": 16777216},
        "patch_size": 16,
        "merge_size": 2,
    },
    "smolvlm2": {"size": {"longest_edge": 1536}, "max_image_size": {"longest_edge": 384}},
}
