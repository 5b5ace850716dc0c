"""The training loop: step after step, with previews on the way and results at the end.

It awaits the device and the VLM in turn, so while one job's image is at the VLM the device works
on another job's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from dualprocess.v1 import generator_pb2 as pb
from services.common.device import DeviceThread
from services.common.errors import NonFinite
from services.generator.checkpoint_stream import CheckpointStream
from services.generator.families.base import GeneratorFamily
from services.generator.guide import Guide
from services.generator.interrupts import Interrupts, Suspended
from services.generator.metrics import step_made, step_skipped
from services.generator.results import preview, results
from services.generator.step import run_step
from services.generator.training import Training

Emit = Callable[[pb.OptimizeResponse], Awaitable[None]]

#: A single step can fail because its noise overflows. After this many failures in a row, the next
#: step would fail too.
MOST_SKIPPED = 10


@dataclass(frozen=True)
class _Made:
    """How many steps are done, including skipped ones, and why there can be no more."""

    steps_done: int
    failed: str = ""


async def optimize(
    family: GeneratorFamily,
    device: DeviceThread,
    spec: pb.OptimizeSpec,
    guide: Guide,
    emit: Emit,
    *,
    name: str,
    interrupts: Interrupts,
    start: bytes | None = None,
    resume: bytes | None = None,
) -> None:
    """Runs one job and sends its events to ``emit``: started, warnings, steps and skipped steps,
    previews, checkpoints, artifacts, what changed, finished.

    ``name`` is unique among the jobs on this generator, ``start`` is the file of the LoRA to begin
    with, ``resume`` that of the checkpoint to go on from. A job that is stopped, or fails because
    too many steps in a row were skipped, exports everything that a complete run exports. ``emit``
    may be called while another call of it is running. However the call ends, the job's LoRA is
    taken off the denoiser.
    """
    async with device.opened(Training, family, spec, name, start=start, resume=resume) as training:
        started = pb.Started(
            trainable_parameters=training.trainable_parameters, steps=spec.optimizer.steps
        )
        await emit(pb.OptimizeResponse(started=started))
        unread = await device.run(family.unread, spec.prompts, spec.image)
        if sentences := [*training.warnings, *unread]:
            await emit(pb.OptimizeResponse(warnings=pb.Warnings(sentences=sentences)))
        checkpoints = CheckpointStream(device, training, emit, spec)
        try:
            guide = interrupts.during(guide)
            made = await _steps(
                device, training, guide, spec, emit, interrupts, checkpoints, family.preset.name
            )
            if interrupts.any:
                await checkpoints.take(made.steps_done)
            exported = await _export(device, training, spec, emit, interrupts)
            await checkpoints.flush()
        finally:
            await checkpoints.abandon()
        finished = pb.Finished(
            steps_done=made.steps_done,
            stopped=made.steps_done < spec.optimizer.steps and not made.failed,
            suspended=not exported,
            failed=made.failed,
        )
        await emit(pb.OptimizeResponse(finished=finished))


async def _steps(
    device: DeviceThread,
    training: Training,
    guide: Guide,
    spec: pb.OptimizeSpec,
    emit: Emit,
    interrupts: Interrupts,
    checkpoints: CheckpointStream,
    generator: str,
) -> _Made:
    steps_done, skipped = spec.resume.step, 0
    while steps_done < spec.optimizer.steps and not interrupts.any:
        try:
            step = await run_step(device, training, guide, spec, steps_done)
        except Suspended:
            break
        except NonFinite as error:
            steps_done, skipped = steps_done + 1, skipped + 1
            told = pb.SkippedStep(step=steps_done, reason=str(error))
            step_skipped(generator)
            await emit(pb.OptimizeResponse(skipped=told))
            if skipped == MOST_SKIPPED:
                return _Made(
                    steps_done, f"{skipped} steps in a row were skipped, the last: {error}"
                )
        else:
            steps_done, skipped = steps_done + 1, 0
            step_made(generator, step.timings)
            await emit(pb.OptimizeResponse(step=step))
        if spec.eval.every and steps_done % spec.eval.every == 0:
            shown = await preview(device, training, spec, steps_done)
            await emit(pb.OptimizeResponse(preview=shown))
        if checkpoints.due(steps_done):
            await checkpoints.take(steps_done)
    return _Made(steps_done)


async def _export(
    device: DeviceThread,
    training: Training,
    spec: pb.OptimizeSpec,
    emit: Emit,
    interrupts: Interrupts,
) -> bool:
    """Returns whether everything was exported; a suspension ends the export."""
    if interrupts.suspended:
        return False
    async for response in results(device, training, spec):
        await emit(response)
        if interrupts.suspended:
            return False
    return True
