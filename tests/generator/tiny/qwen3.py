"""The text side that FLUX.2 [klein] and Z-Image share: Qwen3 behind Qwen's chat format."""

from __future__ import annotations

from tokenizers.pre_tokenizers import ByteLevel
from transformers import Qwen2Tokenizer, Qwen3Config

_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")

_CHAT = (
    "{% for message in messages %}"
    "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
    "{% endif %}"
)


def tokenizer() -> Qwen2Tokenizer:
    """One token a byte."""
    tokens = (*_SPECIAL, *sorted(ByteLevel.alphabet()))
    vocab = {token: index for index, token in enumerate(tokens)}
    tokenizer = Qwen2Tokenizer(vocab=vocab, merges=[])
    tokenizer.add_special_tokens({"additional_special_tokens": list(_SPECIAL[1:])})
    tokenizer.chat_template = _CHAT
    return tokenizer


def config(layers: int) -> Qwen3Config:
    return Qwen3Config(
        vocab_size=len(_SPECIAL) + 256,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=1024,
        initializer_range=0.2,
    )
