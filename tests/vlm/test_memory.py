"""What a VLM keeps for the backward pass, and what it computes again."""

from __future__ import annotations

import pytest
import torch

from services.common.presets import PresetError
from services.vlm import memory, registry
from services.vlm.conversation import AskedQuestion
from services.vlm.families.base import VlmFamily
from services.vlm.guide import Guidance, guide
from tests.vlm.rows import ROWS, Row

POSTFIX = "Answer with Yes or No."
ASKED = [
    AskedQuestion("Is the man smiling?", "Yes"),
    AskedQuestion("What color is the sofa?", "a red sofa"),
]
CPU = torch.device("cpu")


def guided(vlm: VlmFamily, images: torch.Tensor) -> tuple[Guidance, int]:
    """The guidance, and how many bytes were kept for its backward passes."""
    kept = {one.untyped_storage().data_ptr() for one in vlm.model.parameters()}
    count = 0

    def keep(one: torch.Tensor) -> torch.Tensor:
        nonlocal count
        storage = one.untyped_storage()
        if storage.data_ptr() not in kept:
            count += storage.nbytes()
        return one

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda one: one):
        return guide(vlm, images, ASKED, POSTFIX), count


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_lean_keeps_less_and_says_the_same(row: Row, images: dict[str, torch.Tensor]) -> None:
    vlm = registry.load(row.tiny, CPU, "lean")
    lean, little = guided(vlm, images["photo"])
    memory.apply(vlm, "fast")
    fast, much = guided(vlm, images["photo"])
    assert little < much
    assert lean.loss == pytest.approx(fast.loss, abs=1e-6)
    assert lean.answers == fast.answers
    difference = (lean.gradient - fast.gradient).norm() / fast.gradient.norm()
    assert difference < 1e-5


def test_a_levels_choice() -> None:
    (row, *_) = ROWS
    assert registry.load(row.tiny, CPU).memory == "fast", "auto"
    preset = row.tiny.model_copy(update={"memory": "lean"})
    assert registry.load(preset, CPU).memory == "lean"
    assert registry.load(preset, CPU, "fast").memory == "fast"
    with pytest.raises(PresetError, match=r"preset idefics2: memory: 'blocks' is a level of gen"):
        registry.load(preset, CPU, "blocks")
