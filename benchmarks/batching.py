"""How many operators Guide calls launch that go through a model together, by as many alone.

Services do this on a GPU only, where each operator is a launch, and launches take longer than what
they start. Counted on the tiny models of the tests, exactly.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from rich.table import Table

from benchmarks.families import ANSWER, POSTFIX, QUESTIONS, TINY_SIDE
from benchmarks.launches import counts
from services.vlm.conversation import AskedQuestion
from services.vlm.guide import guide_together
from tests.vlm.rows import ROWS, Row

TOGETHER = 4
ASKED = [AskedQuestion(QUESTIONS[0], ANSWER)]


def measure() -> dict[str, Any]:
    torch.set_num_threads(1)
    return {"calls": TOGETHER, "to_alone": {row.preset: ratio(row) for row in ROWS}}


def ratio(row: Row) -> float:
    torch.manual_seed(0)
    vlm = row.load()
    calls = [torch.rand(1, 3, TINY_SIDE, TINY_SIDE) * 2 - 1 for _ in range(TOGETHER)]
    together = counts(lambda: guide_together(vlm, calls, ASKED, POSTFIX))["launches"]
    alone = counts(lambda: guide_together(vlm, calls[:1], ASKED, POSTFIX))["launches"]
    return round(together / (TOGETHER * alone), 3)


def tables(result: Mapping[str, Any]) -> Iterator[Table]:
    shown = Table("VLM", "together / alone", title=f"operators of {result['calls']} Guide calls")
    for name, of in result["to_alone"].items():
        shown.add_row(name, f"{of:.3f}")
    yield shown
