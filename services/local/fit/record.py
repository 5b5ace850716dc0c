"""Counts the presets that come with this version, and records their footprints."""

from __future__ import annotations

import sys
from pathlib import Path

from services.common.footprint import recorded
from services.common.footprint.footprint import Footprint
from services.common.presets import GeneratorPreset, Presets
from services.local.fit.count import counted, kind_of


def write(presets: Presets, folder: Path) -> None:
    found: list[Footprint] = []
    for preset in (*presets.generators.values(), *presets.vlms.values()):
        print(f"{preset.name} …", file=sys.stderr, flush=True)
        asked = (0,) if isinstance(preset, GeneratorPreset) else recorded.QUESTIONS
        found += counted(kind_of(preset), [preset.name], recorded.sizes(preset), 1, asked, folder)
    recorded.write(found)
