"""Counts the presets that come with this version, and records their footprints."""

from __future__ import annotations

import sys
from pathlib import Path

from services.common.footprint import recorded
from services.common.footprint.footprint import Footprint
from services.common.presets import AnyPreset, GeneratorPreset, Presets
from services.local.fit.count import counted, kind_of


def write(presets: Presets, folder: Path) -> None:
    found: list[Footprint] = []
    every: list[AnyPreset] = [*presets.generators.values(), *presets.vlms.values()]
    for preset in every:
        print(f"{preset.name} …", file=sys.stderr, flush=True)
        asked = (0,) if isinstance(preset, GeneratorPreset) else recorded.QUESTIONS
        for batch in recorded.batches(preset):
            sizes = recorded.sizes(preset)
            found += counted(kind_of(preset), [preset.name], sizes, batch, asked, folder)
    recorded.write(found)
