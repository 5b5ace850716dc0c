"""Counts one guidance of a full-size VLM, on fake tensors, with the service's own code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, get_args

import torch

from services.common.footprint.choice import SMALLER
from services.common.footprint.fake import (
    HOST,
    bytes_of,
    largest_layer,
    unmoved,
    weightless,
    weights_of,
)
from services.common.footprint.footprint import Footprint, Work
from services.common.footprint.kernels import as_on_cuda
from services.common.footprint.meter import Meter, marked
from services.common.presets import VlmPreset
from services.common.torch_tensors import DTYPES_BY_NAME
from services.vlm import memory
from services.vlm.architecture import assembled, network
from services.vlm.conversation import AskedQuestion
from services.vlm.families.base import VlmFamily
from services.vlm.guide import guide
from services.vlm.memory import VlmLevel

#: Asked in turn, as long as people ask.
_QUESTIONS = (
    "Is the man smiling?",
    "Is the man wearing a hat?",
    "Is it raining in the picture?",
    "Is the sky blue?",
    "Is the man holding a red umbrella?",
)
_ANSWER, _POSTFIX = "Yes", "Answer with Yes or No."


def weightless_vlm(preset: VlmPreset) -> VlmFamily:
    """The preset's VLM in full size, without memory. Raises ``PresetError``."""
    with weightless():
        made = network(preset, HOST)
    # Building without numbers leaves it out.
    made.tie_weights()
    with unmoved():
        return assembled(preset, made, HOST)


def at_every_setting(
    preset: VlmPreset, size: int, batch: int, questions: int
) -> Iterator[Footprint]:
    """With its weights as they are and quantised, from the fastest level to the smallest. Raises
    ``PresetError``."""
    plain = weightless_vlm(preset.model_copy(update={"quantize": None}))
    exact = []
    for level in get_args(VlmLevel):
        memory.apply(plain, level)
        exact.append(
            footprint(plain, Work("vlm", preset.name, size, batch, questions, level, None))
        )
        yield exact[-1]
    for quantization in SMALLER:
        vlm = weightless_vlm(preset.model_copy(update={"quantize": quantization}))
        weights, largest = bytes_of(weights_of(vlm.model)), largest_layer(vlm.model)
        for found in exact:
            yield found.quantised(quantization, weights, 0, largest, layer_bytes(vlm))


def footprint(vlm: VlmFamily, work: Work) -> Footprint:
    """One guidance for a batch of images of the work's size; with ``vlm`` at the work's memory
    level already."""
    frozen = weights_of(vlm.model)
    asked = [
        AskedQuestion(_QUESTIONS[index % len(_QUESTIONS)], _ANSWER)
        for index in range(work.questions)
    ]
    dtype = DTYPES_BY_NAME[vlm.preset.dtype]
    images = torch.zeros(work.batch, 3, work.size, work.size, dtype=dtype)
    meter = Meter()
    with as_on_cuda(), unmoved(), meter, _phases(vlm, meter):
        meter.ignore(frozen)
        guide(vlm, images, asked, _POSTFIX)
    before = bytes_of(frozen) + bytes_of([images])
    return Footprint(
        work=work,
        weights=bytes_of(frozen),
        text_encoders=0,
        step=before + meter.peak,
        encode=0,
        streamed=0,
        # Calls wait for each other: one at a time computes.
        held=0,
        flops={name: done.flops for name, done in meter.counts.items() if done.flops},
        launches=meter.launches,
        moved=sum(done.moved for done in meter.counts.values()),
        layers=len(vlm.text_model.layers),
        layer=layer_bytes(vlm),
    )


def layer_bytes(vlm: VlmFamily) -> int:
    """Of the weights of each layer of the text model; all are alike."""
    return bytes_of(weights_of(vlm.text_model.layers[0]))


@contextmanager
def _phases(vlm: VlmFamily, meter: Meter) -> Iterator[None]:
    """The meter is told which part of a guidance begins."""
    pixel_values, image_features = vlm.pixel_values, vlm.image_features
    hidden_states = vlm.hidden_states

    def processed(unit_BCHW: torch.Tensor) -> torch.Tensor:
        meter.phase = "pixels"
        return pixel_values(unit_BCHW)

    def features(pixel_values: torch.Tensor) -> torch.Tensor:
        def at_pixels() -> None:
            meter.phase = "pixels"

        def at_features() -> None:
            meter.phase = "vision backward"

        meter.phase = "vision"
        return marked(image_features(marked(pixel_values, at_pixels)), at_features)

    def hidden(*arguments: Any) -> torch.Tensor:
        def at_hidden() -> None:
            meter.phase = "text backward"

        meter.phase = "text"
        return marked(hidden_states(*arguments), at_hidden)

    vlm.pixel_values, vlm.image_features = processed, features  # type: ignore[method-assign]
    vlm.hidden_states = hidden  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        del vlm.pixel_values, vlm.image_features, vlm.hidden_states
