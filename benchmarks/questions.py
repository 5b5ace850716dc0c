"""What five questions about an image cost, by what one costs, for each VLM family.

Floating-point operations are those of torch's own counter, over forward and backward pass of the
full-size architecture without weights; they are exact, for a tokenizer that takes each word as one
token. The time is CPU time of the tests' tiny models, in turn: their images have fewer tokens than
real ones, so the questions' share is larger.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.families import ANSWER, POSTFIX, QUESTIONS, SIDE, TINY_SIDE
from services.common.presets import load_presets
from services.vlm.architecture import vlm as full_size
from services.vlm.conversation import AskedQuestion
from services.vlm.families.base import VlmFamily
from services.vlm.guide import guide
from tests.vlm.rows import ROWS, Row

ROUNDS = 5
META = torch.device("meta")
ASKED = [AskedQuestion(question, ANSWER) for question in QUESTIONS]


def measure() -> dict[str, Any]:
    torch.set_num_threads(1)
    return {"questions": len(ASKED), "vlms": {row.preset: _costs(row) for row in ROWS}}


def _costs(row: Row) -> dict[str, float]:
    vlm = full_size(load_presets().vlm(row.preset), META)
    one, five = (flops(vlm, number) for number in (1, len(ASKED)))
    tiny = row.load()
    _seconds(tiny, 1)
    times = [(_seconds(tiny, len(ASKED)), _seconds(tiny, 1)) for _ in range(ROUNDS)]
    return {
        "teraflops": round(one / 1e12, 2),
        "flops_to_one": round(five / one, 3),
        "time_to_one": round(statistics.median(many / single for many, single in times), 2),
    }


def flops(vlm: VlmFamily, number: int) -> int:
    """Of one Guide of a model on the meta device, with so many questions."""
    images = torch.zeros(1, 3, SIDE, SIDE, device=META, dtype=vlm.model.dtype)
    # It ends where results are to be read, after everything that is counted.
    with FlopCounterMode(display=False) as counter, contextlib.suppress(NotImplementedError):
        guide(vlm, images, ASKED[:number], POSTFIX)
    return int(counter.get_total_flops())


def _seconds(vlm: VlmFamily, number: int) -> float:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(1, 3, TINY_SIDE, TINY_SIDE, generator=generator) * 2 - 1
    begin = time.process_time()
    guide(vlm, images, ASKED[:number], POSTFIX)
    return time.process_time() - begin


def tables(result: Mapping[str, Any]) -> Iterator[Table]:
    title = f"a Guide of {result['questions']} questions / of one"
    shown = Table("VLM", "TFLOP, one", "FLOPs, full size", "time, tiny", title=title)
    for name, of in result["vlms"].items():
        figures = (of["teraflops"], of["flops_to_one"], of["time_to_one"])
        shown.add_row(name, *(f"{figure:.2f}" for figure in figures))
    yield shown
