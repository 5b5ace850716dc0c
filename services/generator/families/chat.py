"""A prompt inside the chat format of a language model that encodes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from services.common.reading import Framed, between


def chat_frame(tokenizer: Any, *, enable_thinking: bool) -> Callable[[str], Framed]:
    """The prompt in Qwen3's chat format, as in FLUX.2's and Z-Image's pipelines."""

    def frame(prompt: str) -> Framed:
        text: str = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}],
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=enable_thinking,
        )
        before, _, after = text.partition(prompt)
        return between(prompt, before, after)

    return frame
