"""What every VLM does, one method an arrow of the data's way:

image → pixel_values → image features → hidden states → logits of the answer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Self, TypeAlias

import torch
import transformers
from PIL import Image
from transformers import AutoTokenizer

from services.common.memory import MemoryLevel
from services.common.presets import VlmPreset
from services.common.quantize import quantize
from services.common.replay import Replays
from services.common.torch_tensors import DTYPES_BY_NAME
from services.common.transfer import upload
from services.vlm import conversation, masks
from services.vlm.conversation import AskedQuestion, Conversation
from services.vlm.packing import Packed
from services.vlm.preprocess import Normalization
from services.vlm.stages import spread

#: How far back a layer of the text model sees, by transformers' names.
LayerKind: TypeAlias = Literal["full_attention", "sliding_attention"]


class VlmFamily(ABC):
    """One frozen VLM, loaded on a device; on several if there are ``others``. Every method takes
    tensors on the first one, and runs on the devices' thread."""

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
        others: Sequence[torch.device] = (),
    ) -> None:
        self.model = model.requires_grad_(False).eval()
        if preset.quantize is not None:
            # Where a layer belongs follows from what all of them take then.
            then = torch.device("cpu") if others else device
            quantize(self.model, preset.quantize, on=device, then=then)
        if others:
            spread(self.model, self.text_model, (device, *others))
        else:
            self.model.to(device)
        self.tokenizer = tokenizer
        self.image_processor = image_processor
        self.preset = preset
        self.device = device
        #: What is computed again to save memory; ``services.vlm.memory`` sets it.
        self.memory: MemoryLevel = "fast"
        #: Runs what comes again from a recording, where the device can; a recording has one device.
        self.replays: Replays[Any] = Replays(device, on=preset.recordings and not others)
        self.normalize = Normalization(image_processor.image_mean, image_processor.image_std)

    @classmethod
    def load(
        cls, preset: VlmPreset, device: torch.device, others: Sequence[torch.device] = ()
    ) -> Self:
        """Loads the preset's model, frozen, in its dtype, from a folder or a hub id."""
        model = getattr(transformers, cls.model_class).from_pretrained(
            preset.model, revision=preset.revision, dtype=DTYPES_BY_NAME[preset.dtype]
        )
        tokenizer = AutoTokenizer.from_pretrained(preset.model, revision=preset.revision)
        image_processor = getattr(transformers, cls.image_processor_class).from_pretrained(
            preset.model, revision=preset.revision
        )
        return cls(model, tokenizer, image_processor, preset, device, others)

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

    def hidden_states(self, packed: Packed, features: torch.Tensor) -> torch.Tensor:
        """Last hidden states [rows, length, width] of packed conversations, on the last device.

        ``features`` [rows, …], from ``image_features``, replace each row's image tokens.

        The text model's layers are called here, and not by its own ``forward``: that one would
        read masks on the host, to see what it may leave out, and take no mask of each kind.
        """
        text = self.text_model
        is_image = self.is_image(packed.input_ids)
        images = upload(is_image.flatten().nonzero().squeeze(1), self.device)
        embeds = text.get_input_embeddings()(upload(packed.input_ids, self.device))
        embedded, *deeper = self.split_features(features.to(embeds.dtype))
        hidden = _replaced(embeds, images, embedded)

        positions = upload(self.position_ids(packed, features), self.device)
        kinds = layer_kinds(text.config)
        masks = {kind: self._mask(packed, is_image, kind, hidden) for kind in set(kinds)}
        rotary = {kind: self.rotary(hidden, positions, kind) for kind in set(kinds)}
        for depth, (layer, kind) in enumerate(zip(text.layers, kinds, strict=False)):
            hidden = layer(
                hidden,
                attention_mask=masks[kind],
                position_embeddings=rotary[kind],
                use_cache=False,
            )
            if depth < len(deeper):
                hidden = _added(hidden, images, deeper[depth])
        normed: torch.Tensor = text.norm(hidden)
        return normed

    @property
    def text_model(self) -> Any:
        """The decoder within the model: embeddings, layers, norm."""
        return self.model.model.language_model

    def split_features(self, features: torch.Tensor) -> Sequence[torch.Tensor]:
        """What is embedded, then what is added to the hidden states behind the first, second, …
        layer: each [image tokens of all rows, width]."""
        return [features.flatten(0, 1)]

    def position_ids(self, packed: Packed, features: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        """Rotary positions of packed rows, on the host."""
        return packed.depths

    def rotary(self, hidden: torch.Tensor, position_ids: torch.Tensor, kind: LayerKind) -> Any:  # noqa: ARG002
        """The position embeddings that layers of this kind take."""
        return self.text_model.rotary_emb(hidden, position_ids)

    def block(self, is_image: torch.Tensor) -> torch.Tensor | None:  # noqa: ARG002
        """Tokens that see each other in both directions, if the text model has such."""
        return None

    def _mask(
        self, packed: Packed, is_image: torch.Tensor, kind: LayerKind, hidden: torch.Tensor
    ) -> torch.Tensor | None:
        """None: the attention's own causal mask, which costs least."""
        config = self.text_model.config
        window = config.sliding_window if kind == "sliding_attention" else None
        block = self.block(is_image)
        is_causal = block is None and not masks.is_needed(packed, window)
        # Other implementations than SDPA have no causal mask of their own.
        if is_causal and config._attn_implementation == "sdpa":
            return None
        return masks.additive(packed, block, window, hidden.dtype, self.device)

    def is_image(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Where an image's features go: bool, shaped as ``input_ids``."""
        image_token_id: int = self.model.config.image_token_id
        return input_ids == image_token_id

    def text_inputs(self, is_image: torch.Tensor) -> Mapping[str, torch.Tensor]:  # noqa: ARG002
        """What the text model needs to know about the image tokens besides their embeddings."""
        return {}

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits [n, vocabulary], on the first device, of hidden states [n, width] on any."""
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


def layer_kinds(config: Any) -> Sequence[LayerKind]:
    """The kind of each layer of a text model."""
    count = config.num_hidden_layers
    kinds: Sequence[LayerKind] | None = getattr(config, "layer_types", None)
    if kinds is not None:
        return kinds[:count]
    window = getattr(config, "sliding_window", None)
    return ["full_attention" if window is None else "sliding_attention"] * count


def _replaced(hidden: torch.Tensor, places: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """``hidden`` [rows, length, width] with ``features`` at these places of all rows' tokens."""
    return hidden.flatten(0, 1).index_copy(0, places, features).view(hidden.shape)


def _added(hidden: torch.Tensor, places: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    there = hidden.device
    added = hidden.flatten(0, 1).index_add(0, places.to(there), features.to(there))
    return added.view(hidden.shape)
