"""Steps from recordings learn what steps as they are learn. Recordings need a GPU."""

from __future__ import annotations

import pytest
import torch

from services.common.replay import RECORDED_AT
from services.generator import registry
from services.generator.families.base import GeneratorFamily
from services.generator.recorded import records
from services.generator.training import Training
from tests.generator.rows import ROWS, Row
from tests.generator.specs import optimize_spec

STEPS = 2 * RECORDED_AT


def family(row: Row, device: str, *, recordings: bool) -> GeneratorFamily:
    preset = row.tiny.model_copy(update={"recordings": recordings})
    return registry.load(preset, torch.device(device))


def learned(row: Row, *, recordings: bool) -> list[torch.Tensor]:
    spec = optimize_spec(steps=STEPS)
    spec.image.CopyFrom(row.images[0])
    spec.lora.target_modules[:] = row.tiny.lora.target_modules
    spec.guard.anchor = 1.0
    training = Training(family(row, "cuda", recordings=recordings), spec, "recorded")
    for step in range(STEPS):
        made = training.forward(step, 0)
        anchor = training.compare(made)
        gradient = torch.ones_like(made.images) / made.images.numel()
        training.backward(made.images, gradient, anchor, [1.0] * len(made.images))
        training.update()
    tensors = [tensor.cpu() for tensor in training._lora.tensors().values()]
    training.close()
    return tensors


def test_without_a_gpu_nothing_is_recorded() -> None:
    row = ROWS[0]
    assert not records(family(row, "cpu", recordings=True))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("row", ROWS, ids=str)
def test_recorded_steps_learn_the_same(row: Row) -> None:
    for recorded, plain in zip(
        learned(row, recordings=True), learned(row, recordings=False), strict=True
    ):
        torch.testing.assert_close(recorded, plain, rtol=1e-2, atol=1e-3)
