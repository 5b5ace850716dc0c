"""Which LoRAs the denoiser runs with, and how seldom its layers are touched for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import torch

from dualprocess.v1 import generator_pb2 as pb
from services.common.device import DeviceThread
from services.generator.adapters.adapted import Adapted
from services.generator.adapters.low_rank import LowRank
from services.generator.families.base import GeneratorFamily
from services.generator.optimize import optimize
from services.generator.sample import render
from tests.generator.bright import bright
from tests.generator.rows import ROWS
from tests.generator.specs import image_spec, optimize_spec
from tests.generator.test_lora import disturbed
from tests.generator.test_optimize import Run, run

#: Layers of the tiny FLUX that a job adapts.
LAYERS = 30


@pytest.fixture
def switched(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many LoRAs were put on a layer, each time that one was touched."""
    touched: list[int] = []
    put_on = Adapted.put_on

    def noted(self: Adapted, loras: tuple[LowRank, ...]) -> None:
        touched.append(len(loras))
        put_on(self, loras)

    monkeypatch.setattr(Adapted, "put_on", noted)
    return touched


def spec_of(seed: int, *, anchor: float = 0) -> pb.OptimizeSpec:
    spec = optimize_spec(seed=seed, steps=4)
    spec.guard.anchor = anchor
    # Every step's noise is new, so that the base model predicts in each.
    spec.optimizer.noise_seeds = spec.optimizer.steps
    return spec


async def test_a_job_alone_switches_its_lora_on_once_for_all_steps(
    schnell: GeneratorFamily, device: DeviceThread, switched: list[int]
) -> None:
    await run(schnell, device, spec_of(1))
    # At the end the base model draws a picture, and then the LoRA one.
    assert switched == ([1] * LAYERS + [0] * LAYERS) * 2


async def test_an_anchor_costs_one_switch_there_and_back_a_step(
    schnell: GeneratorFamily, device: DeviceThread, switched: list[int]
) -> None:
    await run(schnell, device, spec_of(1, anchor=1.0))
    # Four steps, and the two pictures; a step begins with what the last one ended with.
    assert switched == ([1] * LAYERS + [0] * LAYERS) * 6


@pytest.mark.parametrize("anchor", [0, 1.0])
async def test_jobs_side_by_side_learn_the_same_bytes_as_each_alone(
    schnell: GeneratorFamily, device: DeviceThread, switched: list[int], anchor: float
) -> None:
    specs = [spec_of(seed, anchor=anchor) for seed in (1, 2)]
    alone = [(await run(schnell, device, spec)).files for spec in specs]
    switched.clear()
    together = [Run(), Run()]
    await asyncio.gather(
        *(
            optimize(schnell, device, spec, bright, one.emit, name=name, interrupts=one.interrupts)
            for spec, one, name in zip(specs, together, "ab", strict=True)
        )
    )
    assert len(switched) > 4 * LAYERS, "they did not take turns"
    assert [one.files for one in together] == alone


def test_an_error_leaves_the_base_model_to_whoever_runs_it_next(
    load: Callable[[str], GeneratorFamily],
) -> None:
    family = load("flux-schnell")
    conditioning = family.encode("a circle", image_spec())
    before = render(family, conditioning, image_spec(), 1)
    adapter = disturbed(family, "failing")

    def fails() -> None:
        with adapter.active():
            assert (render(family, conditioning, image_spec(), 1) != before).any()
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        fails()
    assert (render(family, conditioning, image_spec(), 1) == before).all()
    with adapter.active():
        assert (render(family, conditioning, image_spec(), 1) != before).any()
    adapter.remove()
    assert (render(family, conditioning, image_spec(), 1) == before).all()


def test_rounded_copies_follow_what_is_learned() -> None:
    """In bfloat16: an image after a step is made with the weights after that step."""
    (row,) = (row for row in ROWS if row.preset == "flux-schnell")
    family = row.load("bfloat16")
    conditioning = family.encode("a circle", image_spec())
    adapter = disturbed(family, "learning")

    def latents() -> torch.Tensor:
        schedule = family.schedule(image_spec())
        noise = family.noise([0], image_spec())
        with adapter.active():
            return family.sample(noise, conditioning, schedule, until=1)

    before = latents()
    assert torch.equal(latents(), before)
    with torch.no_grad():
        for parameter in adapter.parameters:
            parameter.mul_(1.5)
    assert not torch.equal(latents(), before)
    adapter.remove()
