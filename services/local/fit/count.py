"""Footprints of presets: recorded ones, and those that the services count for themselves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from services.common.footprint import recorded
from services.common.footprint.footprint import Footprint, Kind
from services.common.presets import AnyPreset, GeneratorPreset, PresetError


def settings(
    preset: AnyPreset, size: int, batch: int, questions: int, folder: Path
) -> list[Footprint]:
    """Of one work at every memory level and quantisation, the fastest first. ``folder`` is that of
    the preset. Raises ``PresetError`` for what can't be counted."""
    if found := recorded.settings(preset, size, batch, questions):
        return found
    return counted(kind_of(preset), [preset.name], [size], batch, [questions], folder)


def kind_of(preset: AnyPreset) -> Kind:
    return "generator" if isinstance(preset, GeneratorPreset) else "vlm"


def counted(
    kind: Kind,
    presets: Sequence[str],
    sizes: Sequence[int],
    batch: int,
    questions: Sequence[int],
    folder: Path,
) -> list[Footprint]:
    """The service counts, in a process of its own: it has torch, and knows its families."""
    command = [sys.executable, "-m", f"services.{kind}.footprint", *presets]
    command += [f"--size={size}" for size in sizes]
    command += [f"--batch={batch}", f"--folder={folder}"]
    command += [f"--questions={number}" for number in questions]
    done = subprocess.run(  # noqa: S603
        command, capture_output=True, text=True, check=False, env={**os.environ, **_ONE_THREAD}
    )
    if done.returncode:
        raise PresetError(done.stderr.strip().rpartition("\n")[2])
    return [Footprint.from_json(json.loads(line)) for line in done.stdout.splitlines()]


#: Nothing is computed, so more threads would only wait.
_ONE_THREAD = {"OMP_NUM_THREADS": "1"}
