"""The memory level that a VLM starts at."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch

from services.common.footprint import recorded, start
from services.common.footprint.device import free_bytes
from services.common.footprint.footprint import Footprint
from services.common.memory import MemoryChoice
from services.common.presets import PresetError, VlmPreset

log = logging.getLogger(__name__)

#: A VLM learns only from calls what it is asked; this is what many ask.
SIZE, QUESTIONS = 512, 5


def level(
    preset: VlmPreset,
    choice: MemoryChoice,
    device: torch.device,
    free: Callable[[torch.device], int | None] = free_bytes,
) -> MemoryChoice:
    """The fastest level at which ``device`` has room for five questions about one image of 512
    pixels; ``choice`` itself where a device does not say what it has. ``free`` asks it.

    Raises ``StartError`` if there is no room, before anything is loaded.
    """
    room = free(device)
    if room is None or choice in ("decoder", "blocks"):
        # A VLM has no such levels; whoever loads it says so.
        return choice
    try:
        settings = _settings(preset)
    except PresetError as error:
        log.warning("what it needs of the card is unknown: %s", error)
        return choice
    return start.level(settings, choice, preset.quantize, room)


def _settings(preset: VlmPreset) -> list[Footprint]:
    if found := recorded.settings(preset, SIZE, 1, QUESTIONS):
        return found
    # Building full-size networks takes seconds, so it is done only where it must be.
    from services.vlm.footprint.count import at_every_setting

    log.info("counting what %s needs of the card", preset.name)
    return list(at_every_setting(preset, SIZE, 1, QUESTIONS))
