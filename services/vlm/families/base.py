"""What every VLM does, one method an arrow of the data's way:

image → pixel_values → image features → hidden states → logits of the answer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Self

import torch
from PIL import Image

from services.common.presets import VlmPreset
from services.vlm import conversation
from services.vlm.conversation import AskedQuestion, Conversation


class VlmFamily(ABC):
    """One frozen VLM, loaded on a device. Every method runs on the device's thread."""

    model: Any
    tokenizer: Any
    image_processor: Any
    preset: VlmPreset
    device: torch.device

    @classmethod
    @abstractmethod
    def load(cls, preset: VlmPreset, device: torch.device) -> Self:
        """Loads the preset's model, frozen, in its dtype, from a folder or a hub id."""

    @abstractmethod
    def pixel_values(self, unit_BCHW: torch.Tensor) -> torch.Tensor:
        """Differentiable: images in [0, 1] as the model's image processor would give them.

        All images of a call have one size; the aspect is kept as the processor keeps it.
        """

    @abstractmethod
    def processed(self, picture: Image.Image) -> torch.Tensor:
        """``pixel_values`` of one 8-bit picture from the model's own image processor."""

    @abstractmethod
    def image_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """What stands for each image among the text's embeddings: [batch, tokens, width]."""

    @abstractmethod
    def image_placeholder(self, pixel_values: torch.Tensor) -> str:
        """The text that stands for one of these images in a conversation."""

    @abstractmethod
    def hidden_states(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, features: torch.Tensor
    ) -> torch.Tensor:
        """Last hidden states [batch, length, width] of right-padded ids [batch, length].

        ``features`` [batch, tokens, width] take the places of each row's image tokens.
        """

    @abstractmethod
    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits [n, vocabulary] of hidden states [n, width]."""

    @abstractmethod
    def generate(self, pixel_values: torch.Tensor, prompt: str, max_new_tokens: int) -> str:
        """The greedy continuation of ``prompt`` about one processed picture."""

    def converse(self, asked: AskedQuestion, postfix: str, placeholder: str) -> Conversation:
        """The question and its right answer as ids. Raises ``InvalidInput``."""
        for field, text in (
            (f"{asked.field}.question", asked.question),
            (f"{asked.field}.answer", asked.answer),
            ("question_postfix", postfix),
        ):
            conversation.refuse_control_tokens(self.tokenizer, text, field)
        question = conversation.with_postfix(asked.question, postfix)
        prefix = conversation.prompt(self.preset.chat, placeholder, question)
        return conversation.tokenize(self.tokenizer, prefix, asked)
