"""The memory level that a generator starts at."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch

from services.common.footprint import start
from services.common.footprint.device import free_bytes
from services.common.footprint.footprint import Footprint
from services.common.footprint.usual import usual
from services.common.memory import MemoryChoice
from services.common.presets import GeneratorPreset, PresetError

log = logging.getLogger(__name__)


def level(
    preset: GeneratorPreset,
    choice: MemoryChoice,
    device: torch.device,
    free: Callable[[torch.device], int | None] = free_bytes,
) -> MemoryChoice:
    """The fastest level that ``device`` has room for, with images and batch as the preset has them;
    ``choice`` itself where a device does not say what it has. ``free`` asks it.

    Raises ``StartError`` if there is no room, before anything is loaded.
    """
    room = free(device)
    if room is None:
        return choice
    try:
        settings = _settings(preset)
    except PresetError as error:
        log.warning("what it needs of the card is unknown: %s", error)
        return choice
    return start.level(settings, choice, preset.quantize, room)


def _settings(preset: GeneratorPreset) -> list[Footprint]:
    if found := usual(preset):
        return found
    # Building full-size networks takes seconds, so it is done only where it must be.
    from services.generator.footprint.count import at_every_setting

    log.info("counting what %s needs of the card", preset.name)
    size = max(preset.image.width, preset.image.height)
    return list(at_every_setting(preset, size, preset.optimizer.batch))
