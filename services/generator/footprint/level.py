"""The memory level that a generator starts at."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from services.common.footprint import start
from services.common.footprint.device import free_bytes
from services.common.footprint.footprint import Footprint
from services.common.memory import MemoryChoice
from services.common.presets import GeneratorPreset


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

    def count() -> Iterator[Footprint]:
        # Building full-size networks takes seconds, so it is done only where it must be.
        from services.generator.footprint.count import at_every_setting

        size = max(preset.image.width, preset.image.height)
        return at_every_setting(preset, size, preset.optimizer.batch)

    return start.chosen(preset, choice, free(device), count)
