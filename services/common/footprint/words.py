"""A tokenizer without a vocabulary: memory depends on how many tokens a text has, not on which."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch

#: What stands for an image in a VLM's conversation; other control tokens; words; signs.
_IMAGE = r"<image>|<image_soft_token>|\[IMG\]|<\|image_pad\|>"
_TOKEN = re.compile(rf"{_IMAGE}|<[\w|/-]+>|\[/?[A-Z_]+\]|\w+|[^\w\s]")
_IS_IMAGE = re.compile(_IMAGE)
_EOS, _PAD = 2, 0
#: Ids of words lie between the control tokens and the smallest vocabulary.
_FIRST, _WORDS = 11, 1000


class Words:
    """One token for each word and each sign, always the same for the same word. Has of a
    tokenizer what pipelines and VLM families use."""

    bos_token_id = None
    eos_token_id = _EOS
    pad_token_id = _PAD
    padding_side = "right"
    added_tokens_decoder: dict[int, Any] = {}
    added_tokens_encoder: dict[str, int] = {}

    def __init__(self, model_max_length: int = 512, image_token_id: int | None = None) -> None:
        self.model_max_length = model_max_length
        self._image_token_id = image_token_id

    def num_special_tokens_to_add(self) -> int:
        """The end of the text."""
        return 1

    def tokenize(self, text: str) -> list[str]:
        return _TOKEN.findall(text)

    def encode(self, text: str) -> list[int]:
        return [*(self._id(token) for token in self.tokenize(text)), _EOS]

    def decode(self, ids: Any, **_: Any) -> str:
        return " ".join("?" for _ in ids)

    def batch_decode(self, rows: Any, **_: Any) -> list[str]:
        return [self.decode(row) for row in rows]

    def apply_chat_template(self, messages: Sequence[dict[str, str]], **_: Any) -> str:
        said = "".join(
            f"<|im_start|>{message['role']}\n{message['content']}<|im_end|>\n"
            for message in messages
        )
        return f"{said}<|im_start|>assistant\n<think>\n\n</think>\n\n"

    def __call__(
        self,
        text: str | Sequence[str],
        *,
        padding: bool | str = False,
        max_length: int | None = None,
        truncation: bool = False,
        return_tensors: str | None = None,
        **_: Any,
    ) -> Any:
        if isinstance(text, str) and return_tensors is None:
            found = list(_TOKEN.finditer(text))
            return {
                "input_ids": [self._id(token[0]) for token in found],
                "offset_mapping": [token.span() for token in found],
            }
        texts = [text] if isinstance(text, str) else text
        most = max_length or self.model_max_length
        rows = [self.encode(one)[: most if truncation else None] for one in texts]
        length = most if padding == "max_length" else max(map(len, rows))
        ids = [row + [_PAD] * (length - len(row)) for row in rows]
        mask = [[1] * len(row) + [0] * (length - len(row)) for row in rows]
        return _Encoded(input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask))

    def _id(self, token: str) -> int:
        if self._image_token_id is not None and _IS_IMAGE.fullmatch(token):
            return self._image_token_id
        return _FIRST + zlib.crc32(token.encode()) % _WORDS


class _Encoded(SimpleNamespace):
    """Read by attribute and by key, as transformers' own."""

    def __getitem__(self, name: str) -> torch.Tensor:
        tensor: torch.Tensor = getattr(self, name)
        return tensor

    def to(self, _device: torch.device) -> _Encoded:
        return self
