"""What is computed of a model's memory is what a GPU showed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import families
from services.common.footprint import recorded
from services.common.footprint.card import CONTEXT, GIB, reserved
from services.common.footprint.footprint import Footprint
from services.common.presets import AnyPreset, load_presets

MEASURED = json.loads(
    (Path(families.__file__).parent / "results" / "gpu.json").read_text(encoding="utf-8")
)["now"]["rows"]
ROWS = [row for row in MEASURED if "benchmarks.families" in row["command"]]


def computed(command: str) -> Footprint:
    options = families._options(command.split()[3:])
    (name,) = options.names
    presets = load_presets()
    every: dict[str, AnyPreset] = {**presets.generators, **presets.vlms}
    questions = 0 if name in presets.generators else options.questions
    (found,) = (
        one
        for one in recorded.settings(every[name], families.SIDE, 1, questions)
        if (one.work.level, one.work.quantize) == (options.level, options.quantize)
    )
    return found


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["command"].partition("families ")[2])
def test_computed_memory_is_within_a_tenth_of_the_measured(row: dict[str, Any]) -> None:
    found = computed(row["command"])
    assert found.step / GIB == pytest.approx(row["gib_of_tensors_in_steps"], rel=0.1)
    most = max(found.step, found.encode)
    assert reserved(most) / GIB == pytest.approx(row["gib_reserved"], rel=0.1)
    assert pytest.approx(row["gib_of_cuda"], rel=0.2) == CONTEXT / GIB
