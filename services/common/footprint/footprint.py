"""What one model needs of a card, for one kind of work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Self

from services.common.memory import MemoryLevel, Quantization

Kind = Literal["generator", "vlm"]


@dataclass(frozen=True)
class Work:
    """``size`` is the image's side in pixels. A generator's ``questions`` are 0."""

    kind: Kind
    preset: str
    size: int
    batch: int
    questions: int
    level: MemoryLevel
    quantize: Quantization | None


@dataclass(frozen=True)
class Footprint:
    """Bytes that tensors take on the device, and what a step computes; without CUDA's own memory
    and the allocator's, for which see ``card.py``.

    ``weights`` stay there; ``text_encoders`` are there while a prompt is encoded. ``step`` is the
    most that is there during a training step, or a guidance, ``encode`` the most while a prompt is
    encoded, and ``streamed`` the same where the card has no room for the text encoders as a whole;
    all with the weights. ``held`` is what a second job at the same time adds: its LoRA
    with gradient and moments, and what it keeps while a VLM answers.

    ``flops`` are those of a mean step, by phase. ``launches`` and ``moved`` bytes leave out the
    sampler's steps without a gradient, and what it takes to read quantised weights.

    ``layers`` are how many a VLM's text model has, and ``layer`` the bytes of weights of each; a
    generator can't be spread, and has none.
    """

    work: Work
    weights: int
    text_encoders: int
    step: int
    encode: int
    streamed: int
    held: int
    flops: Mapping[str, int]
    launches: int
    moved: int
    layers: int = 0
    layer: int = 0

    @property
    def peak(self) -> int:
        """What a card must have."""
        return max(self.step, self.streamed)

    @property
    def total_flops(self) -> int:
        return sum(self.flops.values())

    def quantised(
        self,
        quantization: Quantization,
        weights: int,
        text_encoders: int,
        largest: int,
        layer: int = 0,
    ) -> Self:
        """The same work with smaller frozen weights. ``largest`` are the bytes of the largest
        linear layer in full precision: one at a time is computed with so."""
        smaller = self.weights - weights
        texts = self.text_encoders - text_encoders
        return replace(
            self,
            work=replace(self.work, quantize=quantization),
            weights=weights,
            text_encoders=text_encoders,
            step=self.step - smaller + largest,
            encode=self.encode and self.encode - smaller - texts + largest,
            streamed=self.streamed and self.streamed - smaller + largest,
            layer=layer,
        )

    def as_json(self) -> dict[str, Any]:
        told = asdict(self)
        if self.work.kind == "generator":
            del told["layers"], told["layer"]
        return told

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Self:
        return cls(**{**told, "work": Work(**told["work"])})
