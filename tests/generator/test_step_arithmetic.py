"""What one step does with its gradients, exactly: averages and clips them; with new draws each
time."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest
import torch

from dualprocess.v1 import generator_pb2 as pb
from dualprocess.v1 import tensor_pb2
from services.common.device import DeviceThread
from services.common.errors import NonFinite
from services.generator import checkpoint, draws
from services.generator.families.base import GeneratorFamily
from services.generator.guide import Guidance, Guide
from services.generator.optimize import optimize
from tests.generator.bright import bright, judge
from tests.generator.specs import optimize_spec
from tests.generator.test_optimize import Run

#: AdamW's first step keeps this much of the gradient as its mean.
FIRST_MEAN = 0.1


async def first_step(
    family: GeneratorFamily, device: DeviceThread, spec: pb.OptimizeSpec, guide: Guide
) -> tuple[pb.Step, torch.Tensor]:
    """One step, as it is told; and the gradient that AdamW took, from the checkpoint behind it."""
    told = Run()
    spec.optimizer.steps = spec.optimizer.noise_seeds = spec.optimizer.checkpoint_every = 1
    await optimize(family, device, spec, guide, told.emit, name="one", interrupts=told.interrupts)
    file = b"".join(
        response.checkpoint.piece.data
        for response in told.responses
        if response.HasField("checkpoint")
    )
    saved = checkpoint.read(file, steps_done=1).tensors
    means = [saved[name].flatten() for name in sorted(saved) if name.endswith("/exp_avg")]
    (step,) = told.steps
    return step, torch.cat(means) / FIRST_MEAN


def only_the_first_call_teaches() -> Guide:
    calls = itertools.count()

    async def guide(message: tensor_pb2.Tensor) -> Guidance:
        guidance = judge(message)
        if next(calls):
            guidance.gradient.data = bytes(len(guidance.gradient.data))
        return guidance

    return guide


@pytest.mark.parametrize("accumulate", [2, 4])
async def test_the_gradient_is_the_mean_over_the_accumulated_calls(
    schnell: GeneratorFamily, device: DeviceThread, accumulate: int
) -> None:
    """The first gives its own gradient and the others none, so the mean is divided by their
    number."""
    spec = optimize_spec()
    alone, _ = await first_step(schnell, device, spec, bright)
    spec.optimizer.accumulate = accumulate
    step, _ = await first_step(schnell, device, spec, only_the_first_call_teaches())
    assert alone.grad_norm > 0
    assert step.grad_norm == pytest.approx(alone.grad_norm / accumulate, rel=1e-4)


async def test_what_is_learned_from_is_clipped_and_what_is_told_is_not(
    schnell: GeneratorFamily, device: DeviceThread
) -> None:
    spec = optimize_spec()
    spec.optimizer.max_grad_norm = 1e9
    free, gradient = await first_step(schnell, device, spec, bright)
    assert gradient.norm().item() == pytest.approx(free.grad_norm, rel=1e-4)
    limit = spec.optimizer.max_grad_norm = free.grad_norm / 8
    clipped, shortened = await first_step(schnell, device, spec, bright)
    assert clipped.grad_norm == free.grad_norm, "told is the norm before clipping"
    assert shortened.norm().item() == pytest.approx(limit, rel=1e-4), "the gradient is not clipped"
    torch.testing.assert_close(shortened * 8, gradient, rtol=1e-3, atol=1e-7)


async def test_each_accumulated_call_has_a_timestep_and_noise_of_its_own(
    load: Callable[[str], GeneratorFamily], device: DeviceThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = load("flux-schnell")
    denoise, trained_at = family.denoise, list[int]()
    images = set[bytes]()

    def watched(
        latents: torch.Tensor, conditioning: object, schedule: object, index: int
    ) -> torch.Tensor:
        if torch.is_grad_enabled():
            trained_at.append(index)
        return denoise(latents, conditioning, schedule, index)  # type: ignore[arg-type]

    async def guide(message: tensor_pb2.Tensor) -> Guidance:
        images.add(message.data)
        return judge(message)

    monkeypatch.setattr(family, "denoise", watched)
    spec = optimize_spec()
    spec.image.num_inference_steps = 4
    spec.optimizer.batch, spec.optimizer.accumulate = 1, 8
    await first_step(family, device, spec, guide)
    assert len(set(trained_at)) > 1, "one timestep for all calls of a step"
    assert trained_at == [draws.timestep_index(spec.optimizer, 0, call, 4) for call in range(8)]
    assert len(images) == 8


def test_calls_of_one_step_are_drawn_apart() -> None:
    """Every timestep comes up within one step of many calls, about as often as the others."""
    optimizer = pb.OptimizerSpec(seed=7, batch=1, noise_seeds=1, timestep=pb.TIMESTEP_RANDOM)
    indices = [draws.timestep_index(optimizer, 0, call, 4) for call in range(400)]
    assert min(indices.count(index) for index in range(4)) > 60


@pytest.mark.parametrize("accumulate", [2, 3])
async def test_a_skipped_step_leaves_nothing_to_the_next(
    schnell: GeneratorFamily, device: DeviceThread, accumulate: int
) -> None:
    """Whether its first call had given a gradient, or none did."""
    norms = []
    for fails_at in (0, accumulate - 1):
        calls = itertools.count()

        async def guide(
            message: tensor_pb2.Tensor, calls: Iterator[int] = calls, fails_at: int = fails_at
        ) -> Guidance:
            if next(calls) == fails_at:
                raise NonFinite("the loss (nan) is not finite")
            return judge(message)

        told, spec = Run(), optimize_spec()
        spec.optimizer.steps = spec.optimizer.noise_seeds = 2
        spec.optimizer.accumulate = accumulate
        await optimize(
            schnell, device, spec, guide, told.emit, name="two", interrupts=told.interrupts
        )
        (step,) = told.steps
        assert step.step == 2
        norms.append(step.grad_norm)
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)
