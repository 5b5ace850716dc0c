"""A call of Guide waits for the device once."""

from __future__ import annotations

import pytest
import torch

from dualprocess.v1 import vlm_pb2
from services.common.errors import NonFinite
from services.vlm.conversation import AskedQuestion
from services.vlm.guide import Guard, guide
from services.vlm.transfer import fetch
from tests.vlm.rows import ROWS, Row
from tests.vlm.test_families import drawing
from tests.vlm.waits import META, Waits, on_meta

SOLID = vlm_pb2.VISUAL_PROMPT_MODE_SOLID
TRANSPARENT = vlm_pb2.VISUAL_PROMPT_MODE_TRANSPARENT
QUESTIONS = [
    AskedQuestion("Is the man smiling?", "Yes"),
    AskedQuestion("What color is the sofa?", "a red sofa", weight=2.0),
    AskedQuestion("Is it raining?", "No", drawing(SOLID)),
    AskedQuestion("Is it raining?", "No", drawing(TRANSPARENT, side=32)),
]


def waits(row: Row, guard: Guard, dtype: str = "float32") -> int:
    """Of one call that fails in the end, since zeros are what comes from the device."""
    vlm = on_meta(row.load())
    vlm.preset = vlm.preset.model_copy(update={"conversations_at_once": 3, "dtype": dtype})
    images = torch.zeros(2, 3, 64, 64, device=META)
    with Waits() as counted, pytest.raises(NonFinite):
        guide(vlm, images, QUESTIONS, "Answer with Yes or No.", guard)
    return counted.count


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_whatever_is_asked(row: Row) -> None:
    assert waits(row, Guard(margin=0.9, worst_case=0.1)) == 1


def test_once_for_each_scale_of_the_loss() -> None:
    assert waits(ROWS[0], Guard(worst_case=0.1), "float16") == 3


def test_what_waits_is_noticed() -> None:
    there = torch.zeros(3, device=META)
    with Waits() as counted:
        there.to("cpu")
        torch.zeros(3).to(META)
        torch.tensor([1.0], device=META)
        there[torch.tensor([1, 2])]
    assert counted.count == 4
    with pytest.raises(RuntimeError, match="meta"):
        there.sum().item()


def test_fetched_tensors_are_what_they_were() -> None:
    sent = [
        torch.tensor([True, False, True]),
        torch.randn(2, 3).to(torch.bfloat16),
        torch.randn(5, 1),
        torch.arange(4, dtype=torch.int32),
        torch.randn(3, 4).T,
    ]
    for one, other in zip(fetch(sent), sent, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
