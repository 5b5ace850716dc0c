"""What a generator computes does not depend on how much of it is kept on the device."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import NamedTuple, get_args

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from dualprocess.v1 import generator_pb2 as pb
from dualprocess.v1 import generator_pb2_grpc
from services.common.memory import LEVELS, MemoryChoice, MemoryLevel
from services.generator import registry
from services.generator.families.base import GeneratorFamily
from services.generator.memory import levels
from services.generator.training import Made, Training
from tests.generator.live import LiveBytes
from tests.generator.rows import ROWS, Row
from tests.generator.specs import optimize_spec

CPU = torch.device("cpu")
BY_PRESET = {row.preset: row for row in ROWS}
FLUX = BY_PRESET["flux-dev"]
each_row = pytest.mark.parametrize("row", ROWS, ids=str)


def loaded(row: Row, level: MemoryChoice, dtype: str = "float32") -> GeneratorFamily:
    return registry.load(row.tiny.model_copy(update={"dtype": dtype}), CPU, level)


def job(row: Row, *more_targets: str, prompt: str = "a circle", seed: int = 100) -> pb.OptimizeSpec:
    """Two images a step. The timestep of each is drawn, so some are sampled to first."""
    spec = optimize_spec(steps=2, seed=seed)
    spec.prompts[:] = [prompt]
    spec.image.CopyFrom(row.images[0])
    spec.lora.target_modules[:] = [*row.tiny.lora.target_modules, *more_targets]
    spec.guard.anchor = 0.5
    return spec


def backward(training: Training, made: Made) -> None:
    generator = torch.Generator().manual_seed(1)
    gradient = torch.randn(made.images.shape, generator=generator)
    comparison = training.compare(made)
    assert comparison is not None
    training.backward(made.images, gradient, comparison.anchor, [0.5] * len(made.images))


class Learned(NamedTuple):
    images: list[torch.Tensor]
    norms: list[float]
    files: dict[str, bytes]


def learned(family: GeneratorFamily, *specs: pb.OptimizeSpec) -> list[Learned]:
    """What jobs learn that take turns between forward and backward pass."""
    jobs = [Training(family, spec, f"job{number}") for number, spec in enumerate(specs)]
    results: list[Learned] = [Learned([], [], {}) for _ in jobs]
    for step in range(2):
        all_made = [training.forward(step, 0) for training in jobs]
        for training, made, result in zip(jobs, all_made, results, strict=True):
            backward(training, made)
            result.images.append(made.images.detach())
            result.norms.append(training.update())
    for training, result in zip(jobs, results, strict=True):
        result.files.update(training.export())
        training.close()
    return results


def check_same(ones: Iterable[Learned], others: Iterable[Learned]) -> None:
    for one, other in zip(ones, others, strict=True):
        for ours, theirs in zip(one.images, other.images, strict=True):
            assert torch.equal(ours, theirs)
        assert one.norms == other.norms
        assert one.files == other.files
        assert min(one.norms) > 0


@cache
def at_fast(row: Row, dtype: str) -> list[Learned]:
    return learned(loaded(row, "fast", dtype), job(row))


@pytest.mark.parametrize(
    ("row", "dtype"),
    [(row, "float32") for row in ROWS]
    + [(BY_PRESET[name], "bfloat16") for name in ("flux-dev", "sd-1.4", "sana-1.6b")],
    ids=str,
)
def test_a_job_learns_the_same_at_each_level(row: Row, dtype: str) -> None:
    for level in ("decoder", "blocks", "lean"):
        check_same(learned(loaded(row, level, dtype), job(row)), at_fast(row, dtype))


def test_a_level_can_be_changed_and_given_twice() -> None:
    family = loaded(FLUX, "lean")
    for level in ("lean", "fast", "blocks", "lean", "lean"):
        levels.apply(family, level)
        assert family.memory == level
        check_same(learned(family, job(FLUX)), at_fast(FLUX, "float32"))
    levels.apply(family, "fast")
    assert weights(family) == weights(loaded(FLUX, "fast"))


def weights(family: GeneratorFamily) -> int:
    networks = [family.denoiser, family.vae, *family.text_encoders]
    parameters = [parameter for network in networks for parameter in network.parameters()]
    storages = {parameter.untyped_storage() for parameter in parameters}
    return sum(storage.nbytes() for storage in storages)


def peak_of_a_step(family: GeneratorFamily, row: Row) -> int:
    """Bytes that live at most beside the weights."""
    training = Training(family, job(row), "job")
    with LiveBytes() as live:
        backward(training, training.forward(0, 0))
    training.close()
    return live.peak


@each_row
def test_each_level_needs_less_than_the_one_before(row: Row) -> None:
    family = loaded(row, "fast")
    peaks = {}
    for level in LEVELS:
        levels.apply(family, level)
        peaks[level] = peak_of_a_step(family, row)
    assert peaks["decoder"] < peaks["fast"]
    assert peaks["blocks"] < peaks["fast"]
    assert peaks["lean"] < min(peaks["decoder"], peaks["blocks"])


@each_row
def test_without_gradients_nothing_is_computed_twice(row: Row) -> None:
    family = loaded(row, "fast")
    training = Training(family, job(row), "job")
    counted = {}
    for level in ("fast", "lean"):
        levels.apply(family, level)
        training.draw(7, with_lora=True)
        with FlopCounterMode(display=False) as flops:
            training.draw(7, with_lora=True)
        counted[level] = flops.get_total_flops()
    training.close()
    assert 0 < counted["lean"] <= counted["fast"]
