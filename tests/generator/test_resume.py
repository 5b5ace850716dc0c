"""A job that continues from a checkpoint ends like an undisturbed one."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Callable

import pytest
from safetensors.torch import load as tensors_of
from safetensors.torch import save

from dualprocess.v1 import generator_pb2 as pb
from dualprocess.v1 import tensor_pb2
from services.common.device import DeviceThread
from services.common.errors import BadCheckpoint
from services.generator.families.base import GeneratorFamily
from services.generator.guide import Guidance, Guide
from services.generator.lora.export import LORA_FILE
from services.generator.lora.safetensors_header import metadata
from services.generator.optimize import optimize
from tests.generator.bright import bright
from tests.generator.specs import optimize_spec
from tests.generator.test_optimize import Run, run

Load = Callable[[str], GeneratorFamily]


def spec_with(*, steps: int = 12, every: int = 5, **optimizer: int) -> pb.OptimizeSpec:
    spec = optimize_spec(steps=steps)
    spec.optimizer.checkpoint_every = every
    for name, value in optimizer.items():
        setattr(spec.optimizer, name, value)
    return spec


def checkpoints(told: Run) -> dict[int, bytes]:
    """The files of the whole checkpoints, by step."""
    files: defaultdict[int, bytes] = defaultdict(bytes)
    whole = set()
    for response in told.responses:
        files[response.checkpoint.step] += response.checkpoint.piece.data
        if response.checkpoint.piece.last:
            whole.add(response.checkpoint.step)
    return {step: files[step] for step in sorted(whole)}


def resumed(spec: pb.OptimizeSpec, step: int) -> pb.OptimizeSpec:
    again = pb.OptimizeSpec()
    again.CopyFrom(spec)
    again.resume.blob, again.resume.step = "checkpoint", step
    return again


async def killed_after(
    family: GeneratorFamily, device: DeviceThread, spec: pb.OptimizeSpec, checkpoint: int
) -> Run:
    """A run that dies in a later step than that of its checkpoint."""
    told = Run()

    async def dies(message: tensor_pb2.Tensor) -> Guidance:
        if checkpoint in checkpoints(told) and len(told.steps) > checkpoint:
            job.cancel()
        return await bright(message)

    job = asyncio.create_task(
        optimize(family, device, spec, dies, told.emit, name="dies", interrupts=told.interrupts)
    )
    with contextlib.suppress(asyncio.CancelledError):
        await job
    assert job.cancelled()
    return told


@pytest.mark.parametrize(
    ("optimizer", "anchor"),
    [({}, 0.0), ({"accumulate": 2, "batch": 1}, 0.2), ({"noise_seeds": 3}, 0.2)],
    ids=str,
)
async def test_a_resumed_job_ends_with_the_same_bytes(
    load: Load,
    schnell: GeneratorFamily,
    device: DeviceThread,
    optimizer: dict[str, int],
    anchor: float,
) -> None:
    spec = spec_with(**optimizer)
    spec.guard.anchor = anchor
    spec.prompts.append("two squares")
    undisturbed = await run(schnell, device, spec)
    assert list(checkpoints(undisturbed)) == [5, 10]
    dead = await killed_after(schnell, device, spec, 5)
    assert checkpoints(dead)[5] == checkpoints(undisturbed)[5]
    rest = await run(load("flux-schnell"), device, resumed(spec, 5), resume=checkpoints(dead)[5])
    assert [step.step for step in rest.steps] == list(range(6, 13))
    assert dead.losses[:5] + rest.losses == undisturbed.losses
    assert rest.files == undisturbed.files
    assert checkpoints(rest) == {10: checkpoints(undisturbed)[10]}


async def test_without_the_optimisers_state_it_would_end_elsewhere(
    schnell: GeneratorFamily, device: DeviceThread
) -> None:
    undisturbed = await run(schnell, device, spec_with())
    file = checkpoints(undisturbed)[5]
    bare = {name: tensor for name, tensor in tensors_of(file).items() if "/" not in name}
    forgetful = save(bare, metadata=metadata(file))
    rest = await run(schnell, device, resumed(spec_with(), 5), resume=forgetful)
    assert rest.files[LORA_FILE] != undisturbed.files[LORA_FILE]


async def test_a_checkpoint_of_the_last_step_is_all_but_the_files(
    schnell: GeneratorFamily, device: DeviceThread
) -> None:
    spec = spec_with(steps=4, every=2)
    undisturbed = await run(schnell, device, spec)
    rest = await run(schnell, device, resumed(spec, 4), resume=checkpoints(undisturbed)[4])
    assert rest.steps == []
    assert rest.files == undisturbed.files
    assert not rest.responses[-1].finished.stopped


async def test_no_checkpoints_where_none_are_wanted(
    schnell: GeneratorFamily, device: DeviceThread
) -> None:
    assert checkpoints(await run(schnell, device, spec_with(every=0))) == {}


def interrupted(told: Run, after: int, *, suspend: bool) -> Guide:
    """A VLM that never answers after this many steps, when the job must end."""

    async def guide(message: tensor_pb2.Tensor) -> Guidance:
        if len(told.steps) == after:
            (told.interrupts.suspend if suspend else told.interrupts.stop).set()
            if suspend:
                await asyncio.Event().wait()
        return await bright(message)

    return guide


async def test_a_suspended_job_goes_on_elsewhere(
    load: Load, schnell: GeneratorFamily, device: DeviceThread
) -> None:
    spec = spec_with(accumulate=2)
    undisturbed = await run(schnell, device, spec)
    told = Run()
    guide = interrupted(told, 7, suspend=True)
    async with asyncio.timeout(60):
        await optimize(
            schnell, device, spec, guide, told.emit, name="moves", interrupts=told.interrupts
        )
    finished = told.responses[-1].finished
    assert (finished.steps_done, finished.stopped, finished.suspended) == (7, True, True)
    assert told.files == {}
    assert list(checkpoints(told)) == [5, 7]
    rest = await run(load("flux-schnell"), device, resumed(spec, 7), resume=checkpoints(told)[7])
    assert told.losses + rest.losses == undisturbed.losses
    assert rest.files == undisturbed.files


async def test_a_stopped_job_leaves_a_checkpoint_and_its_files(
    schnell: GeneratorFamily, device: DeviceThread
) -> None:
    told = Run()
    guide = interrupted(told, 2, suspend=False)
    await optimize(
        schnell, device, spec_with(), guide, told.emit, name="ends", interrupts=told.interrupts
    )
    assert list(checkpoints(told)) == [3]
    assert LORA_FILE in told.files


def _other_rank(spec: pb.OptimizeSpec, file: bytes) -> bytes:
    spec.lora.rank = 8
    return file


def _other_step(spec: pb.OptimizeSpec, file: bytes) -> bytes:
    spec.resume.step = 6
    return file


SPOILS: list[tuple[Callable[[pb.OptimizeSpec, bytes], bytes], str]] = [
    (lambda _, file: file[:-1], "not a safetensors file"),
    (lambda _, file: b"", "not a safetensors file"),
    (_other_step, "after step 5, not 6"),
    (_other_rank, "is torch.float32"),
    (lambda spec, file: (spec.lora.target_modules.pop(), file)[1], "does not belong to this job"),
    (
        lambda _, file: save(
            {name: t for name, t in tensors_of(file).items() if "attn.to_q.lora_A" not in name},
            metadata=metadata(file),
        ),
        "is missing",
    ),
]


@pytest.mark.parametrize(("spoil", "sentence"), SPOILS, ids=[sentence for _, sentence in SPOILS])
async def test_a_checkpoint_that_cannot_be_is_refused(
    schnell: GeneratorFamily,
    device: DeviceThread,
    spoil: Callable[[pb.OptimizeSpec, bytes], bytes],
    sentence: str,
) -> None:
    spec = spec_with(steps=6)
    file = checkpoints(await run(schnell, device, spec))[5]
    again = resumed(spec, 5)
    with pytest.raises(BadCheckpoint, match=f"^resume: .*{sentence}"):
        await run(schnell, device, again, resume=spoil(again, file))
    assert not schnell.adapters.adapters
