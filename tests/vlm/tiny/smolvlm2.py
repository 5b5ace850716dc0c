"""A tiny random SmolVLM2 in the hub's layout."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    AutoTokenizer,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMImageProcessorPil,
)

PARITY = Path(__file__).parents[2] / "fixtures" / "parity"


def build(folder: Path) -> None:
    """Writes model, tokenizer (that of the tiny Idefics2, with SmolVLM's tokens) and processor."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(PARITY / "models" / "idefics2")
    tokenizer.add_special_tokens(
        {"additional_special_tokens": ["<global-img>", "<|im_start|>", "<|im_end|>"]},
        replace_extra_special_tokens=False,
    )
    config = SmolVLMConfig(
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        tie_word_embeddings=False,
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "image_size": 96,
            "patch_size": 16,
            "initializer_range": 0.12,
        },
        text_config={
            "model_type": "llama",
            "vocab_size": len(tokenizer),
            "hidden_size": 48,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 12,
            "initializer_range": 0.12,
            "pad_token_id": tokenizer.unk_token_id,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        },
    )
    SmolVLMForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    processor = SmolVLMImageProcessorPil(
        size={"longest_edge": 384}, max_image_size={"longest_edge": 96}
    )
    processor.save_pretrained(folder)
