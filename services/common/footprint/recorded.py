"""The footprints of the presets that come with this version, counted once:
``recorded.json``, written by ``dualprocess fit --write``. Needs no torch."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path

from services.common.footprint.footprint import Footprint
from services.common.presets import AnyPreset, GeneratorPreset, load_presets

FILE = Path(__file__).with_name("recorded.json")

#: Numbers of questions that are recorded.
QUESTIONS = (1, 5)
#: What a footprint depends on, of a preset.
_DECISIVE = ("family", "model", "dtype", "guidance", "guidance_above", "lora")


@cache
def footprints() -> tuple[Footprint, ...]:
    """All of them, the fastest settings of a work first."""
    if not FILE.exists():
        return ()
    told = json.loads(FILE.read_text(encoding="utf-8"))
    return tuple(Footprint.from_json(one) for one in told)


def settings(preset: AnyPreset, size: int, batch: int, questions: int) -> list[Footprint]:
    """The footprints of one work at every memory level and quantisation, the fastest first; none
    where they must be counted first. A preset that is as one of those recorded, but for its name,
    has that one's."""
    same = _recorded_as(preset)
    return [
        replace(found, work=replace(found.work, preset=preset.name))
        for found in footprints()
        if found.work.preset == same
        and (found.work.size, found.work.batch, found.work.questions) == (size, batch, questions)
    ]


def sizes(preset: AnyPreset) -> tuple[int, ...]:
    """Of images, that are recorded. The models of the checkout are for small ones."""
    return (512, 1024) if preset.is_on_hub else (64,)


def batches(preset: AnyPreset) -> tuple[int, ...]:
    """Images of a step, that are recorded; those of the checkout's generator are four."""
    return (1,) if preset.is_on_hub else (1, 4)


def write(counted: Iterable[Footprint]) -> None:
    """One line for each."""
    lines = [json.dumps(one.as_json()) for one in counted]
    FILE.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")
    footprints.cache_clear()


def _recorded_as(preset: AnyPreset) -> str | None:
    kind = "generators" if isinstance(preset, GeneratorPreset) else "vlms"
    shipped: dict[str, AnyPreset] = dict(getattr(load_presets(), kind))
    for name, other in shipped.items():
        if all(getattr(preset, field, None) == getattr(other, field, None) for field in _DECISIVE):
            return name
    return None
