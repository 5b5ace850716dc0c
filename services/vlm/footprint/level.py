"""The memory level that a VLM starts at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

from services.common.footprint import start
from services.common.footprint.device import free_bytes
from services.common.footprint.footprint import Footprint
from services.common.footprint.usual import QUESTIONS, SIZE
from services.common.memory import MemoryChoice
from services.common.presets import VlmPreset


def level(
    preset: VlmPreset,
    choice: MemoryChoice,
    devices: Sequence[torch.device],
    free: Callable[[torch.device], int | None] = free_bytes,
) -> MemoryChoice:
    """The fastest level at which ``devices``, over which its layers are spread, have room for five
    questions about one image of 512 pixels; ``choice`` itself where a device does not say what it
    has. ``free`` asks it.

    Raises ``StartError`` if there is no room, before anything is loaded.
    """

    def count() -> Iterator[Footprint]:
        # Building full-size networks takes seconds, so it is done only where it must be.
        from services.vlm.footprint.count import at_every_setting

        return at_every_setting(preset, SIZE, 1, QUESTIONS)

    # A VLM has no such levels; whoever loads it says so.
    if choice in ("decoder", "blocks"):
        return choice
    rooms = [free(device) for device in devices]
    known = [room for room in rooms if room is not None]
    return start.chosen(preset, choice, min(known, default=None), count, cards=len(devices))
