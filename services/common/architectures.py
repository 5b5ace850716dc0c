"""The configurations of models, as files that come with this version."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from services.common.presets import AnyPreset, PresetError


def shipped(preset: AnyPreset, folder: Path) -> Mapping[str, Any]:
    """That of the preset's model, from ``folder``. Raises ``PresetError`` if it is not there."""
    path = folder / f"{preset.model.rpartition('/')[2]}.json"
    described = read(path) if path.exists() else {}
    if described.get("model") != preset.model:
        raise PresetError(
            f"preset {preset.name}: the architecture of {preset.model} does not come with this "
            "version; download the model, and write its folder as `model:`"
        )
    return described


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found
