"""How much of a VLM's forward pass is kept for the backward pass."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.idefics2.modeling_idefics2 import Idefics2PerceiverLayer

from services.common.memory import MemoryChoice
from services.common.presets import PresetError
from services.common.recompute import keep, recompute
from services.vlm.families.base import VlmFamily

#: ``fast`` keeps everything; ``lean`` computes the layers of tower and text model again.
VlmLevel: TypeAlias = Literal["fast", "lean"]


def choose(vlm: VlmFamily, choice: MemoryChoice) -> VlmLevel:
    """The level for a choice; ``auto``: the fastest. Raises ``PresetError`` for a level that only
    generators have."""
    if choice == "auto":
        return "fast"
    if choice == "decoder" or choice == "blocks":
        raise PresetError(
            f"preset {vlm.preset.name}: memory: {choice!r} is a level of generators; "
            "a VLM has fast, lean and auto"
        )
    return choice


def apply(vlm: VlmFamily, level: VlmLevel) -> None:
    """Puts the VLM at this level, in the first call as in a later one. Answers and gradients are
    the same at each. To be called while nothing runs on the device."""
    (recompute if level == "lean" else keep)(_layers(vlm.model))
    vlm.memory = level


def _layers(network: torch.nn.Module) -> list[torch.nn.Module]:
    """The repeated layers, without those inside another of them."""
    found: list[torch.nn.Module] = []
    for child in network.children():
        is_layer = isinstance(child, GradientCheckpointingLayer | Idefics2PerceiverLayer)
        found += [child] if is_layer else _layers(child)
    return found
