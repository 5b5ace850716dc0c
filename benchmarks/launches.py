"""How many operators a step launches, and how often the host waits for a value, exactly.

Counted on the tiny models of the tests: a model's depth is the tiny one's, so compare a figure with
its earlier self, not with another model's. On a GPU each operator is one launch or more. A read of
a value is a wait only where the value is on the GPU, and on the CPU all are counted: the tests of
waits (``tests/generator/test_waits.py``, ``tests/vlm/test_waits.py``) count those of a device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from rich.table import Table
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.families import ANSWER, POSTFIX, QUESTIONS, TINY_SIDE, optimize_spec
from services.generator.training import Training
from services.vlm.conversation import AskedQuestion
from services.vlm.guide import guide
from tests.generator import rows as generator_rows
from tests.vlm import rows as vlm_rows

#: Operators whose result has a size or a value that the host needs.
_READS = {
    "aten::_local_scalar_dense",
    "aten::nonzero",
    "aten::equal",
    "aten::masked_select",
    "aten::unique_consecutive",
}


class Counted(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what runs within: ``launches`` of operators that compute, ``reads`` by the host."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.launches = 0
        self.reads = 0

    def __torch_dispatch__(
        self, function: Any, types: object, args: Any = (), kwargs: Any = None
    ) -> Any:
        name = function._schema.name
        indices = args[1] if name in ("aten::index", "aten::index_put_") else ()
        by_mask = any(one is not None and one.dtype == torch.bool for one in indices)
        self.reads += name in _READS or by_mask
        self.launches += not (function.is_view or name == "aten::detach")
        return function(*args, **(kwargs or {}))


def measure() -> dict[str, Any]:
    torch.set_num_threads(1)
    return {
        "generators": {row.preset: generator(row) for row in generator_rows.ROWS},
        "vlms": {row.preset: vlm(row) for row in vlm_rows.ROWS},
    }


def generator(row: generator_rows.Row) -> dict[str, int]:
    """A step with the whole guard's anchor, without the VLM."""
    torch.manual_seed(0)
    training = Training(row.load(), optimize_spec(row.tiny, TINY_SIDE, 2), "job")

    def step(index: int) -> None:
        made = training.forward(index, 0)
        anchor = training.compare(made)
        gradient = torch.ones_like(made.images) / made.images.numel()
        training.backward(made.images, gradient, anchor, [1.0] * len(gradient))
        training.update()

    step(0)
    return counts(lambda: step(1))


def vlm(row: vlm_rows.Row) -> dict[str, int]:
    """A Guide of one question."""
    torch.manual_seed(0)
    family = row.load()
    images = torch.rand(1, 3, TINY_SIDE, TINY_SIDE) * 2 - 1
    asked = [AskedQuestion(QUESTIONS[0], ANSWER)]
    guide(family, images, asked, POSTFIX)
    return counts(lambda: guide(family, images, asked, POSTFIX))


def counts(step: Callable[[], object]) -> dict[str, int]:
    counter = Counted()
    within: AbstractContextManager[object] = counter
    with within:
        step()
    return {"launches": counter.launches, "reads": counter.reads}


def tables(result: Mapping[str, Any]) -> Iterator[Table]:
    for kind, what in (("generators", "a step"), ("vlms", "a Guide of one question")):
        shown = Table(kind, "operators", "reads by the host", title=f"{what}, tiny models")
        for name, of in result[kind].items():
            shown.add_row(name, str(of["launches"]), str(of["reads"]))
        yield shown
