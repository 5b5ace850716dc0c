"""How much of a generator is kept on its device, and how much is computed or fetched again."""

from __future__ import annotations

from typing import Any, Protocol

import torch

from services.common.memory import MemoryChoice, MemoryLevel
from services.common.recompute import keep, recompute
from services.generator.memory.blocks import DECODER_PARTS, DENOISER_PARTS, parts
from services.generator.memory.modulation import Modulation
from services.generator.memory.text_encoders import TextEncoders


class Family(Protocol):
    """What of a ``GeneratorFamily`` has a place and a level."""

    device: torch.device
    denoiser: Any
    vae: Any
    texts: TextEncoders
    modulation: Modulation | None
    memory: MemoryLevel


def choose(choice: MemoryChoice) -> MemoryLevel:
    """The level for a choice that no card has narrowed down; ``auto``: the fastest."""
    return "fast" if choice == "auto" else choice


def apply(family: Family, level: MemoryLevel) -> None:
    """Puts the family on its device at this level, in the first call as in a later one. Images and
    gradients are the same bits at each level. To be called while no job runs."""
    decoder = parts(family.vae.decoder, DECODER_PARTS)
    denoiser = parts(family.denoiser, DENOISER_PARTS)
    assert all((decoder, denoiser)), "memory/blocks.py names none of this family's blocks"
    (recompute if level in ("decoder", "lean") else keep)(decoder)
    (recompute if level in ("blocks", "lean") else keep)(denoiser)
    # First what stays away, so that the device never has it.
    if family.modulation is not None:
        (family.modulation.leave if level == "lean" else family.modulation.come)()
    for network in (family.denoiser, family.vae):
        _place(network, family.device)
    family.texts.streamed = level == "lean"
    family.texts.leave()
    family.memory = level


def _place(network: torch.nn.Module, device: torch.device) -> None:
    tensors = [*network.parameters(), *network.buffers()]
    if any(tensor.device != device for tensor in tensors):
        network.to(device)
