"""Tables of what models need of a card, from what ``dualprocess fit`` recorded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from services.common.footprint import recorded
from services.common.footprint.card import CARDS, GIB, needed, usable
from services.common.footprint.choice import apart, together
from services.common.footprint.footprint import Footprint
from services.common.presets import AnyPreset, load_presets

#: Names of columns, and rows.
Table: TypeAlias = tuple[Sequence[str], list[Sequence[str]]]

_SIZE, _QUESTIONS = 512, 5


def needs() -> Table:
    """GiB of a card for each preset, at each setting."""
    rows: list[Sequence[str]] = []
    for preset in (*_generators(), *_vlms()):
        settings = _settings(preset)
        if not settings:
            continue
        for level in dict.fromkeys(one.work.level for one in settings):
            at_level = [one for one in settings if one.work.level == level]
            cells = [f"{needed(one.peak) / GIB:.1f}" for one in at_level]
            rows.append((f"`{preset.name}`", level, *cells))
    return ("preset", "memory", "as it is", "int8", "nf4"), rows


def pairs() -> Table:
    """The smallest cards that hold each pair."""
    vlms = [preset for preset in _vlms() if _settings(preset)]
    rows: list[Sequence[str]] = []
    for generator in _generators():
        if _settings(generator):
            cells = [_smallest(_settings(generator), _settings(vlm)) for vlm in vlms]
            rows.append((f"`{generator.name}`", *cells))
    return ("", *(f"`{vlm.name}`" for vlm in vlms)), rows


def _smallest(generators: Sequence[Footprint], vlms: Sequence[Footprint]) -> str:
    exact = [[one for one in side if one.work.quantize is None] for side in (generators, vlms)]
    any_weights = [generators, vlms]
    one = next((gib for gib in CARDS if together(exact, usable(gib))), None)
    two = next((gib for gib in CARDS if apart(exact, usable(gib))), None)
    quantized = next((gib for gib in CARDS if together(any_weights, usable(gib))), None)
    told = [f"{one}" if one else "–"]
    if two and (one is None or two < one):
        told.append(f"2 × {two}")
    if quantized and (one is None or quantized < one):
        told.append(f"({quantized})")
    return ", ".join(told)


def _settings(preset: AnyPreset) -> list[Footprint]:
    questions = 0 if preset in _generators() else _QUESTIONS
    return recorded.settings(preset, _SIZE, 1, questions)


def _generators() -> list[AnyPreset]:
    return [preset for preset in load_presets().generators.values() if preset.is_on_hub]


def _vlms() -> list[AnyPreset]:
    return [preset for preset in load_presets().vlms.values() if preset.is_on_hub]
