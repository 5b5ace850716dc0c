"""The loop, on a tiny Flux and a guide that wants bright images."""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict
from collections.abc import Callable

import numpy as np
import pytest
import torch

from dualprocess.v1 import generator_pb2 as pb
from dualprocess.v1 import tensor_pb2
from services.common.device import DeviceThread
from services.common.errors import BadGradient, NonFinite
from services.generator.families.base import GeneratorFamily
from services.generator.guide import Guidance, Guide
from services.generator.interrupts import Interrupts
from services.generator.lora.export import KOHYA_FILE, LORA_FILE
from services.generator.optimize import MOST_SKIPPED, optimize
from tests.generator.bright import bright, judge
from tests.generator.specs import optimize_spec


class Run:
    """All messages of one job."""

    def __init__(self) -> None:
        self.responses: list[pb.OptimizeResponse] = []
        self.interrupts = Interrupts()

    async def emit(self, response: pb.OptimizeResponse) -> None:
        self.responses.append(response)

    @property
    def steps(self) -> list[pb.Step]:
        return [response.step for response in self.responses if response.HasField("step")]

    @property
    def losses(self) -> list[float]:
        return [step.loss for step in self.steps]

    @property
    def skipped(self) -> list[int]:
        skipped = [response.skipped for response in self.responses if response.HasField("skipped")]
        assert all("not finite" in one.reason for one in skipped)
        return [one.step for one in skipped]

    @property
    def finished(self) -> pb.Finished:
        return self.responses[-1].finished

    @property
    def files(self) -> dict[str, bytes]:
        files: defaultdict[str, bytes] = defaultdict(bytes)
        for response in self.responses:
            files[response.artifact.name] += response.artifact.data
        del files[""]
        return files


async def run(
    family: GeneratorFamily,
    device: DeviceThread,
    spec: pb.OptimizeSpec,
    guide: Guide = bright,
    name: str = "job",
    **files: bytes,
) -> Run:
    told = Run()
    interrupts = told.interrupts
    await optimize(
        family, device, spec, guide, told.emit, name=name, interrupts=interrupts, **files
    )
    return told


async def test_it_learns_and_tells(schnell: GeneratorFamily, device: DeviceThread) -> None:
    spec = optimize_spec(steps=12)
    spec.eval.every = 6
    spec.optimizer.noise_seeds = 1
    told = await run(schnell, device, spec)
    kinds = [response.WhichOneof("message") for response in told.responses]
    assert kinds == (
        ["started", *["step"] * 6, "preview", *["step"] * 6, "preview"]
        + ["artifact"] * 4
        + ["collateral", "finished"]
    )
    assert told.losses[-1] < min(told.losses[:3]) < told.losses[0]
    assert [step.step for step in told.steps] == list(range(1, 13))
    assert set(told.files) == {LORA_FILE, KOHYA_FILE, "base-0.png", "lora-0.png"}
    assert not told.responses[-1].finished.stopped


async def test_same_spec_same_bytes(schnell: GeneratorFamily, device: DeviceThread) -> None:
    first = await run(schnell, device, optimize_spec(), name="first")
    second = await run(schnell, device, optimize_spec(), name="second")
    other = await run(schnell, device, optimize_spec(seed=101), name="other")
    assert first.losses == second.losses
    assert first.files == second.files
    assert other.files[LORA_FILE] != first.files[LORA_FILE]


async def test_jobs_side_by_side_do_not_touch(
    schnell: GeneratorFamily, device: DeviceThread
) -> None:
    specs = [optimize_spec(seed=seed, steps=4) for seed in (1, 2)]
    specs[1].lora.rank = 8
    specs[1].guard.anchor = 0.2
    del specs[1].lora.target_modules[3:]
    alone = [await run(schnell, device, spec, name=f"a{i}") for i, spec in enumerate(specs)]
    order: list[int] = []

    def in_order(job: int) -> Guide:
        async def guide(message: tensor_pb2.Tensor) -> Guidance:
            order.append(job)
            return await bright(message)

        return guide

    together = await asyncio.gather(
        *(
            run(schnell, device, spec, guide=in_order(i), name=f"b{i}")
            for i, spec in enumerate(specs)
        )
    )
    assert [told.files for told in together] == [told.files for told in alone]
    assert order not in ([0] * 4 + [1] * 4, [1] * 4 + [0] * 4), "the jobs must have interleaved"


async def test_stop_ends_after_the_step_and_exports(
    schnell: GeneratorFamily, device: DeviceThread
) -> None:
    told = Run()

    async def stop_in_second_step(message: tensor_pb2.Tensor) -> Guidance:
        if len(told.steps) == 1:
            told.interrupts.stop.set()
        return await bright(message)

    spec = optimize_spec(steps=50)
    await optimize(
        schnell,
        device,
        spec,
        stop_in_second_step,
        told.emit,
        name="stopped",
        interrupts=told.interrupts,
    )
    assert len(told.steps) == 2
    finished = told.responses[-1].finished
    assert finished.stopped
    assert finished.steps_done == 2
    assert LORA_FILE in told.files


async def test_an_abandoned_job_leaves_nothing(
    load: Callable[[str], GeneratorFamily], device: DeviceThread
) -> None:
    family = load("flux-schnell")
    for turns in (0, 1, 30):
        job = asyncio.create_task(run(family, device, optimize_spec(steps=50)))
        for _ in range(turns):
            await asyncio.sleep(0.01)
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
    await device.run(lambda: None)
    assert not family.adapters.adapters


async def test_accumulated_calls_make_one_step(
    schnell: GeneratorFamily, device: DeviceThread
) -> None:
    spec = optimize_spec(steps=2)
    spec.optimizer.batch, spec.optimizer.accumulate = 1, 3
    calls: list[int] = []

    async def count(message: tensor_pb2.Tensor) -> Guidance:
        calls.append(message.shape[0])
        return await bright(message)

    told = await run(schnell, device, spec, guide=count)
    assert calls == [1] * 6
    assert len(told.steps) == 2
    assert all(np.isfinite(step.grad_norm) and step.grad_norm > 0 for step in told.steps)


async def test_prompts_take_turns(schnell: GeneratorFamily, device: DeviceThread) -> None:
    spec = optimize_spec(steps=2)
    spec.optimizer.noise_seeds = 1
    same = await run(schnell, device, spec)
    spec.prompts.append("two squares")
    both = await run(schnell, device, spec)
    assert both.files[LORA_FILE] != same.files[LORA_FILE]


@pytest.mark.parametrize("spoil", ["nan", "shape"])
async def test_a_gradient_that_cannot_be_used(
    schnell: GeneratorFamily, device: DeviceThread, spoil: str
) -> None:
    async def spoiled(message: tensor_pb2.Tensor) -> Guidance:
        guidance = judge(message)
        if spoil == "nan":
            guidance.gradient.data = b"\xff" * len(guidance.gradient.data)
        else:
            guidance.gradient.shape[0] = 7
        return guidance

    with pytest.raises(BadGradient, match="gradient"):
        await run(schnell, device, optimize_spec(), guide=spoiled)


def _breaking(told: Run, steps: set[int]) -> Guide:
    """A guide that answers NaN in these steps, counted from 1."""

    async def guide(message: tensor_pb2.Tensor) -> Guidance:
        if len(told.steps) + len(told.skipped) + 1 in steps:
            raise NonFinite("the loss (nan) or its gradient is not finite")
        return await bright(message)

    return guide


async def test_a_step_that_is_not_finite_changes_nothing_and_is_told(
    schnell: GeneratorFamily, device: DeviceThread
) -> None:
    """The second of three steps: what is learned is what the first and the third teach."""
    told = Run()
    guide, interrupts = _breaking(told, {2}), told.interrupts
    spec = optimize_spec(steps=3)
    spec.optimizer.accumulate = 2
    await optimize(schnell, device, spec, guide, told.emit, name="nan", interrupts=interrupts)
    assert [step.step for step in told.steps] == [1, 3]
    assert told.skipped == [2]
    assert (told.finished.steps_done, told.finished.failed) == (3, "")
    whole = await run(schnell, device, spec)
    assert told.losses[0] == whole.losses[0]
    assert told.files[LORA_FILE] != whole.files[LORA_FILE]


async def test_ten_skipped_steps_in_a_row_end_the_job_with_what_was_learned(
    schnell: GeneratorFamily, device: DeviceThread
) -> None:
    told = Run()
    # Nine skipped steps in a row are accepted; the ten after them are not.
    broken = {*range(2, 2 + MOST_SKIPPED - 1), *range(12, 12 + MOST_SKIPPED)}
    guide, spec = _breaking(told, broken), optimize_spec(steps=50)
    await optimize(schnell, device, spec, guide, told.emit, name="x", interrupts=told.interrupts)
    assert [step.step for step in told.steps] == [1, 11]
    assert told.skipped == sorted(broken)
    assert not told.finished.stopped
    assert told.finished.failed.startswith("10 steps in a row were skipped, the last: the loss")
    assert {LORA_FILE, "lora-0.png"} < set(told.files)


async def test_an_image_that_is_not_finite_skips_its_step(
    load: Callable[[str], GeneratorFamily],
    device: DeviceThread,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    family = load("flux-schnell")
    decode, calls = family.decode, itertools.count()

    def spoiled(latents: torch.Tensor, spec: pb.ImageSpec) -> torch.Tensor:
        return decode(latents, spec) * (float("inf") if next(calls) == 1 else 1)

    monkeypatch.setattr(family, "decode", spoiled)
    told = await run(family, device, optimize_spec(steps=3))
    assert told.skipped == [2]
    assert [step.step for step in told.steps] == [1, 3]
