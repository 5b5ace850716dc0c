"""What each preset needs of a card at every memory level and quantisation, and the arithmetic of a
step, beside what a GPU measured.

Counted on the architectures, without weights: ``dualprocess fit --write`` counts again, and this
reads what it wrote. ``results/gpu.json`` has the measured tensors.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from services.common.footprint import recorded
from services.common.footprint.card import GIB
from services.common.footprint.footprint import Footprint

SIDE = 512
_MEASURED = Path(__file__).parent / "results" / "gpu.json"


def measure() -> dict[str, Any]:
    counted = [
        found for found in recorded.footprints() if (found.work.size, found.work.batch) == (SIDE, 1)
    ]
    return {
        "needs": [
            {
                "preset": found.work.preset,
                "questions": found.work.questions,
                "level": found.work.level,
                "quantize": found.work.quantize,
                "gb": round(found.peak / 1e9, 2),
                "teraflops": round(found.total_flops / 1e12, 1),
            }
            for found in counted
        ],
        "computed_to_measured": dict(_compared(counted)),
    }


def _compared(counted: list[Footprint]) -> Iterator[tuple[str, float]]:
    """The tensors of a step: computed, by what a GPU measured with the same setting."""
    measured = json.loads(_MEASURED.read_text(encoding="utf-8"))["now"]["rows"]
    for row in measured:
        _, _, _, preset, *flags = shlex.split(row["command"])
        setting = dict(zip(flags[::2], flags[1::2], strict=True))
        wanted = (
            preset,
            int(setting.get("--questions", 0)),
            setting.get("--level", "fast"),
            setting.get("--quantize"),
        )
        for found in counted:
            work = found.work
            if (work.preset, work.questions, work.level, work.quantize) == wanted:
                ratio = found.step / GIB / row["gib_of_tensors_in_steps"]
                yield " ".join([preset, *flags]), round(ratio, 3)


def tables(result: Mapping[str, Any]) -> Iterator[Table]:
    shown = Table(
        "preset", "questions", "level", "weights", "GB", "TFLOP", title=f"{SIDE} × {SIDE}, batch 1"
    )
    for of in result["needs"]:
        figures = (of["questions"] or "–", of["level"], of["quantize"] or "as they are")
        shown.add_row(of["preset"], *map(str, figures), f"{of['gb']:.1f}", f"{of['teraflops']:.1f}")
    yield shown
    compared = Table("setting", "computed / measured", title="tensors of a step")
    for setting, ratio in result["computed_to_measured"].items():
        compared.add_row(setting, f"{ratio:.3f}")
    yield compared
