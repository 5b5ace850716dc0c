"""Idefics2: SigLIP tower, perceiver, Mistral (Laurençon et al., 2024)."""

from __future__ import annotations

from typing import Any, Self

import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoTokenizer, Idefics2ForConditionalGeneration

from services.common.presets import VlmPreset
from services.common.torch_tensors import DTYPES_BY_NAME
from services.vlm.families.base import VlmFamily
from services.vlm.preprocess import Normalization, resize

_BOUNDARY = "<fake_token_around_image>"
_IMAGE = "<image>"


class Idefics2(VlmFamily):
    """One image a conversation, not split into tiles. ``pixel_values`` [batch, 3, h, w]."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        image_processor: Any,
        preset: VlmPreset,
        device: torch.device,
    ) -> None:
        self.model = model.requires_grad_(False).eval().to(device)
        self.tokenizer = tokenizer
        self.image_processor = image_processor
        self.preset = preset
        self.device = device
        self._normalize = Normalization(image_processor.image_mean, image_processor.image_std)
        self._placeholder: str = (
            _BOUNDARY + _IMAGE * model.config.perceiver_config.resampler_n_latents + _BOUNDARY
        )

    @classmethod
    def load(cls, preset: VlmPreset, device: torch.device) -> Self:
        model = Idefics2ForConditionalGeneration.from_pretrained(
            preset.model, revision=preset.revision, dtype=DTYPES_BY_NAME[preset.dtype]
        )
        tokenizer = AutoTokenizer.from_pretrained(preset.model, revision=preset.revision)
        image_processor = AutoImageProcessor.from_pretrained(preset.model, revision=preset.revision)
        return cls(model, tokenizer, image_processor, preset, device)

    def pixel_values(self, unit_BCHW: torch.Tensor) -> torch.Tensor:
        height, width = unit_BCHW.shape[-2:]
        return self._normalize(resize(unit_BCHW, self._target_size(height, width), "bilinear"))

    def _target_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) after the processor's resize: the longer side is limited, then no side
        is below the least."""
        longest = self.image_processor.size["longest_edge"]
        shortest = self.image_processor.size["shortest_edge"]
        aspect = width / height
        if width >= height and width > longest:
            height, width = int(longest / aspect), longest
        elif height > width and height > longest:
            height, width = longest, int(longest * aspect)
        return max(height, shortest), max(width, shortest)

    def processed(self, picture: Image.Image) -> torch.Tensor:
        batch = self.image_processor(picture, do_image_splitting=False, return_tensors="pt")
        pixel_values: torch.Tensor = batch["pixel_values"][0]
        return pixel_values.to(self.device)

    def image_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        # Not model.get_image_features: it takes an evenly grey image for padding, and drops it.
        model = self.model.model
        hidden = model.vision_model(pixel_values=pixel_values.to(model.dtype)).last_hidden_state
        every_patch = torch.ones(hidden.shape[:2], dtype=torch.bool, device=hidden.device)
        features: torch.Tensor = model.connector(hidden, attention_mask=every_patch)
        return features

    def image_placeholder(self, pixel_values: torch.Tensor) -> str:  # noqa: ARG002
        return self._placeholder

    def hidden_states(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, features: torch.Tensor
    ) -> torch.Tensor:
        text_model = self.model.model.text_model
        embeds = text_model.get_input_embeddings()(input_ids)
        is_image = (input_ids == self.model.config.image_token_id).unsqueeze(-1)
        embeds = embeds.masked_scatter(is_image, features.to(embeds.dtype))
        hidden: torch.Tensor = text_model(
            inputs_embeds=embeds, attention_mask=attention_mask, use_cache=False
        ).last_hidden_state
        return hidden

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model.lm_head(hidden)
        return logits

    def generate(self, pixel_values: torch.Tensor, prompt: str, max_new_tokens: int) -> str:
        # The space before an answer is part of its first token.
        ids = self.tokenizer(prompt.rstrip(), return_tensors="pt").to(self.device)
        generated = self.model.generate(
            **ids,
            pixel_values=pixel_values.unsqueeze(1).to(self.model.dtype),
            max_new_tokens=max_new_tokens,
            do_sample=False,
        )
        answer = self.tokenizer.decode(
            generated[0, ids["input_ids"].shape[1] :], skip_special_tokens=True
        )
        return str(answer).strip()
