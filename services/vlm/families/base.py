"""What every VLM does, one method an arrow of the data's way:

image → pixel_values → image features → hidden states → logits of the answer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
import transformers
from PIL import Image
from transformers import AutoTokenizer

from services.common.presets import VlmPreset
from services.common.quantize import quantize
from services.common.torch_tensors import DTYPES_BY_NAME
from services.vlm import conversation
from services.vlm.conversation import AskedQuestion, Conversation
from services.vlm.preprocess import Normalization


class VlmFamily(ABC):
    """One frozen VLM, loaded on a device. Every method runs on the device's thread."""

    #: The model's class in transformers.
    model_class: ClassVar[str]
    #: Not always ``AutoImageProcessor``: for some models it would choose one that needs
    #: torchvision.
    image_processor_class: ClassVar[str] = "AutoImageProcessor"

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        image_processor: Any,
        preset: VlmPreset,
        device: torch.device,
    ) -> None:
        self.model = model.requires_grad_(False).eval()
        if preset.quantize is not None:
            quantize(self.model, preset.quantize, on=device, then=device)
        self.model.to(device)
        self.tokenizer = tokenizer
        self.image_processor = image_processor
        self.preset = preset
        self.device = device
        self.normalize = Normalization(image_processor.image_mean, image_processor.image_std)

    @classmethod
    def load(cls, preset: VlmPreset, device: torch.device) -> Self:
        """Loads the preset's model, frozen, in its dtype, from a folder or a hub id."""
        model = getattr(transformers, cls.model_class).from_pretrained(
            preset.model, revision=preset.revision, dtype=DTYPES_BY_NAME[preset.dtype]
        )
        tokenizer = AutoTokenizer.from_pretrained(preset.model, revision=preset.revision)
        image_processor = getattr(transformers, cls.image_processor_class).from_pretrained(
            preset.model, revision=preset.revision
        )
        return cls(model, tokenizer, image_processor, preset, device)

    @abstractmethod
    def pixel_values(self, unit_BCHW: torch.Tensor) -> torch.Tensor:
        """Differentiable: images in [0, 1] as the model's image processor would give them.

        All images of a call have one size; the aspect ratio is kept as the processor keeps it.
        """

    @abstractmethod
    def processed(self, picture: Image.Image) -> torch.Tensor:
        """``pixel_values`` of one 8-bit picture from the model's own image processor."""

    @abstractmethod
    def image_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """What stands for each image among the text's embeddings: [batch, tokens, width].

        A family whose text model asks where a token lies gives [batch, rows, columns, width].
        """

    @abstractmethod
    def image_placeholder(self, pixel_values: torch.Tensor) -> str:
        """The text that stands for one of these images in a conversation."""

    def hidden_states(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, features: torch.Tensor
    ) -> torch.Tensor:
        """Last hidden states [batch, length, width] of right-padded ids [batch, length].

        ``features``, from ``image_features``, replace each row's image tokens.
        """
        model = self.model.model
        is_image = self.is_image(input_ids)
        embeds = model.get_input_embeddings()(input_ids)
        embeds = embeds.masked_scatter(is_image.unsqueeze(-1), features.to(embeds.dtype))
        hidden: torch.Tensor = model(
            inputs_embeds=embeds,
            attention_mask=attention_mask,
            use_cache=False,
            **self.text_inputs(is_image),
        ).last_hidden_state
        return hidden

    def is_image(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Where an image's features go: bool, shaped as ``input_ids``."""
        image_token_id: int = self.model.config.image_token_id
        return input_ids == image_token_id

    def text_inputs(self, is_image: torch.Tensor) -> Mapping[str, torch.Tensor]:  # noqa: ARG002
        """What the text model needs to know about the image tokens besides their embeddings."""
        return {}

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits [n, vocabulary] of hidden states [n, width]."""
        logits: torch.Tensor = self.model.lm_head(hidden)
        return logits

    def generate(self, pixel_values: torch.Tensor, prompt: str, max_new_tokens: int) -> str:
        """The greedy continuation of ``prompt`` about one processed picture."""
        # The space before an answer is part of its first token.
        ids = conversation.ids(self.tokenizer, prompt.rstrip(" "))
        input_ids = torch.tensor([ids], device=self.device)
        generated = self.model.generate(
            input_ids=input_ids,
            attention_mask=torch.ones_like(input_ids),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            **self.vision_inputs(pixel_values),
            **self.text_inputs(self.is_image(input_ids)),
        )
        answer = self.tokenizer.decode(generated[0, len(ids) :], skip_special_tokens=True)
        return str(answer).strip()

    def vision_inputs(self, pixel_values: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """The whole model's arguments for these images, by their names."""
        return {"pixel_values": pixel_values.to(self.model.dtype)}

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
