"""What five questions about an image cost, by what one costs, for each VLM family.

Floating-point operations are those of torch's own counter, over forward and backward pass, on the
tiny models of the tests; they are exact. The time is CPU time, in turn. A tiny model's image has
fewer tokens than a real one's, so at full size the questions' share is smaller than here.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from services.vlm.conversation import AskedQuestion
from services.vlm.families.base import VlmFamily
from services.vlm.guide import guide
from tests.vlm.rows import ROWS

SIDE, ROUNDS = 64, 5
POSTFIX = "Answer with Yes or No."
ASKED = [
    AskedQuestion(f"Is the {thing} in the picture red?", "Yes")
    for thing in ("circle", "square", "house", "horse", "table")
]


def measure() -> dict[str, Any]:
    torch.set_num_threads(1)
    return {"questions": len(ASKED), "vlms": {row.preset: _costs(row.load()) for row in ROWS}}


def _costs(vlm: VlmFamily) -> dict[str, float]:
    images = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 2 - 1

    def asked(number: int) -> None:
        guide(vlm, images, ASKED[:number], POSTFIX)

    def flops(number: int) -> int:
        with FlopCounterMode(display=False) as counter:
            asked(number)
        return int(counter.get_total_flops())

    def seconds(number: int) -> float:
        begin = time.process_time()
        asked(number)
        return time.process_time() - begin

    seconds(1)
    times = [(seconds(len(ASKED)), seconds(1)) for _ in range(ROUNDS)]
    return {
        "flops_to_one": round(flops(len(ASKED)) / flops(1), 3),
        "time_to_one": round(statistics.median(many / one for many, one in times), 2),
    }


def tables(result: Mapping[str, Any]) -> Iterator[Table]:
    shown = Table("VLM", "FLOPs", "time", title=f"{result['questions']} questions / one, tiny")
    for name, of in result["vlms"].items():
        shown.add_row(name, f"{of['flops_to_one']:.3f}", f"{of['time_to_one']:.2f}")
    yield shown
