"""Compiled blocks: the next job compiles nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from dualprocess.v1 import generator_pb2 as pb
from services.generator.compiled import compile_blocks
from services.generator.families.base import GeneratorFamily
from services.generator.training import Training
from tests.generator.rows import ROWS
from tests.generator.specs import image_spec, optimize_spec

BY_PRESET = {row.preset: row for row in ROWS}


class Compiler:
    """Counts what torch asks to be compiled, and runs it as it is."""

    def __init__(self) -> None:
        self.compiled = 0

    def __call__(self, graph: Any, _: Any) -> Any:
        self.compiled += 1
        return graph.forward


def spec_of(seed: int, targets: list[str]) -> pb.OptimizeSpec:
    """A step of the sampler without gradient, then one with it."""
    spec = optimize_spec(steps=2, seed=seed)
    spec.image.CopyFrom(image_spec(num_inference_steps=2))
    spec.lora.target_modules[:] = targets
    # Trains at the sampler's last step.
    spec.optimizer.timestep = pb.TIMESTEP_LAST
    spec.lora.weight = seed
    return spec


def learned(family: GeneratorFamily, spec: pb.OptimizeSpec, name: str) -> dict[str, torch.Tensor]:
    training = Training(family, spec, name)
    for step in range(2):
        made = training.forward(step, 0)
        training.backward(made.images, torch.full_like(made.images, 1e-3))
        training.update()
    tensors = training.checkpoint(2).tensors
    training.close()
    return dict(tensors)


# What dynamo does while it traces.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.filterwarnings("ignore:.*Function'> should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize(
    ("preset", "dtype", "recomputed"),
    [
        ("flux-schnell", "float32", False),
        pytest.param("sana-1.6b", "bfloat16", True, marks=pytest.mark.long),
    ],
)
def test_the_next_job_compiles_nothing_and_all_learn_the_same(
    preset: str, dtype: str, recomputed: bool
) -> None:
    row, compiler = BY_PRESET[preset], Compiler()
    # Of the blocks only: dynamo is slow, and the layers of one kind are alike.
    specs = [spec_of(seed, row.tiny.lora.target_modules[:4]) for seed in (1, 2, 3)]
    family = row.load(dtype)
    wanted = [learned(family, spec, "plain") for spec in specs]
    compile_blocks(family.denoiser, compiler)
    if recomputed:
        for block in family.denoiser.modules():
            if "forward" in block.__dict__:
                block.__dict__["forward"] = _again(block.forward)
    first = learned(family, specs[0], "first")
    compiled = compiler.compiled
    assert compiled > 0
    later = [learned(family, spec, f"later-{spec.optimizer.seed}") for spec in specs[1:]]
    assert compiler.compiled == compiled, "another job was compiled for"
    for got, expected in zip([first, *later], wanted, strict=True):
        assert all(torch.equal(got[name], expected[name]) for name in expected)


def _again(forward: Any) -> Any:
    def run(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)

    return run
