"""Which models a stack serves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from services.common.presets import PresetError, Presets
from services.local.settings import LocalSettings


@dataclass(frozen=True)
class Models:
    """Presets of a stack: at least one generator and one VLM, none twice."""

    generators: Sequence[str]
    vlms: Sequence[str]

    def __str__(self) -> str:
        *others, last = [*self.generators, *self.vlms]
        return f"{', '.join(others)} and {last}"


def chosen(settings: LocalSettings, presets: Presets) -> Models:
    """Raises ``PresetError`` for a name that no preset has, and where a kind is missing."""
    if not settings.models:
        presets.generator(settings.generator)
        presets.vlm(settings.vlm)
        return Models([settings.generator], [settings.vlm])
    names = list(dict.fromkeys(name.strip() for name in settings.models.split(",")))
    known = {"generator": presets.generators, "VLM": presets.vlms}
    for name in names:
        if not any(name in kind for kind in known.values()):
            listed = ", ".join(preset for kind in known.values() for preset in kind)
            raise PresetError(f"--models: {name!r} is unknown: choose from {listed}")
    for what, kind in known.items():
        if not any(name in kind for name in names):
            raise PresetError(f"--models: names no {what}: add one of {', '.join(kind)}")
    return Models(
        [name for name in names if name in presets.generators],
        [name for name in names if name in presets.vlms],
    )
