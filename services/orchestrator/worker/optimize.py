"""One optimise job: drives the generator, stores its results, has them scored."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import grpc

from dualprocess.schemas import (
    AnyStepEvent,
    BaseScore,
    JobStatus,
    JudgeScores,
    ResolvedJobSpec,
    Score,
    Scores,
    StepEvent,
)
from dualprocess.v1 import generator_pb2 as pb
from dualprocess.v1 import generator_pb2_grpc
from services.orchestrator.is_needed import base_score
from services.orchestrator.worker import report, tensorboard, wire
from services.orchestrator.worker.advice import advice
from services.orchestrator.worker.checkpoints import Checkpoints, SavedCheckpoint
from services.orchestrator.worker.failures import (
    JobRefused,
    JobStopped,
    ServiceEnded,
    WorkerStopping,
)
from services.orchestrator.worker.files import read_file
from services.orchestrator.worker.known import remember
from services.orchestrator.worker.lease import Lease
from services.orchestrator.worker.run import Run, changed, skipped_steps
from services.orchestrator.worker.scoring import image_scores, mean_score, scoring
from services.orchestrator.worker.stores import Stores
from services.orchestrator.worker.targets import Targets

#: What the blobs of a call are called.
_START, _RESUME = "start", "resume"


async def optimize(
    spec: ResolvedJobSpec,
    lease: Lease,
    generator: generator_pb2_grpc.GeneratorAsyncStub,
    targets: Targets,
    stores: Stores,
    *,
    owner: str,
    stopping: asyncio.Event,
) -> JobStatus:
    """Runs the job of ``owner``. Returns its final status: succeeded, perhaps before the last step
    because it had learned enough; or cancelled, with what it learned.

    It continues from its newest checkpoint; if it was cancelled meanwhile, without another step.
    ``targets`` has the address of each VLM. When ``stopping`` is set, the job is suspended.

    Raises ``grpc.aio.AioRpcError`` if the generator refuses or is lost; ``JobRefused`` if the VLM
    refuses, the LoRA to begin with is gone, or too many steps in a row were skipped;
    ``WorkerStopping`` or ``ServiceEnded`` if the job was suspended because the worker or the
    generator stops; ``JobStopped`` if it was cancelled and learned nothing; and ``LeaseLost``.
    """
    began = time.monotonic()
    run = await _run(spec, lease, generator, targets, stores, stopping)
    if run.suspended:
        if stopping.is_set():
            raise WorkerStopping
        raise ServiceEnded(f"the generator {spec.generator} was told to stop")
    for name, data in (
        ("metrics.jsonl", report.metrics_jsonl(run.steps)),
        ("job.json", report.job_json(spec)),
    ):
        await lease.store(name, data)
    made = [step for step in run.steps if isinstance(step, StepEvent)]
    if made:
        await lease.store("loss.png", await asyncio.to_thread(report.loss_png, made))
        logs = await asyncio.to_thread(tensorboard.events, made, changed(run.collateral))
        await lease.store(tensorboard.FILE, logs)
    await _show(spec, lease, run)
    if run.failed:
        raise JobRefused(f"the generator {spec.generator}: {run.failed}")
    base = await _score(spec, lease, targets, run)
    seconds = time.monotonic() - began - run.waited
    await stores.paces.note(lease.claim.job_id, spec, steps=run.step_seconds, seconds=seconds)
    await remember(spec, base, owner, stores)
    if run.stopped and run.why is not None:
        await lease.record(fields={"stopped_because": run.why})
        return JobStatus.SUCCEEDED
    return JobStatus.CANCELLED if run.stopped else JobStatus.SUCCEEDED


async def _run(
    spec: ResolvedJobSpec,
    lease: Lease,
    generator: generator_pb2_grpc.GeneratorAsyncStub,
    targets: Targets,
    stores: Stores,
    stopping: asyncio.Event,
) -> Run:
    """The run from the newest checkpoint that the generator takes, else from the start."""
    checkpoints = Checkpoints(lease, stores)
    while True:
        resume = await checkpoints.newest()
        steps: list[AnyStepEvent] = []
        if resume is not None:
            steps = await stores.events.steps(lease.claim.job_id, until=resume.step)
            fields = {"step": str(resume.step), "skipped": str(skipped_steps(steps))}
            await lease.record(fields=fields)
        elif lease.cancel_wanted.is_set():
            raise JobStopped
        run = Run(spec, lease, checkpoints, steps)
        files = _Files(None if resume else await _start(spec, stores, lease), resume)
        # Made here: what goes wrong while grpc.aio iterates over requests is lost.
        message = _message(spec, targets, files)
        call = generator.Optimize(_requests(message, files, lease, stopping, run.learned))
        try:
            async for response in call:
                await run.take(response)
        except grpc.aio.AioRpcError as error:
            if resume is None or error.code() is not grpc.StatusCode.FAILED_PRECONDITION:
                raise
            await checkpoints.drop(resume.step, error.details() or "the generator refused it")
        else:
            return run
        finally:
            call.cancel()


async def _start(spec: ResolvedJobSpec, stores: Stores, lease: Lease) -> bytes | None:
    """The file of the LoRA to begin with."""
    start = spec.lora.start
    if start is None or start.job is None:
        return None
    return await read_file(start.job, start.artifact, stores, lease)


@dataclass(frozen=True)
class _Files:
    """The files that are sent with the spec."""

    start: bytes | None
    resume: SavedCheckpoint | None


def _message(spec: ResolvedJobSpec, targets: Targets, files: _Files) -> pb.OptimizeSpec:
    return wire.optimize_spec(
        spec,
        targets.addresses,
        start_blob=_START if files.start is not None else "",
        resume=pb.Resume(blob=_RESUME, step=files.resume.step) if files.resume else None,
    )


async def _requests(
    spec: pb.OptimizeSpec,
    files: _Files,
    lease: Lease,
    stopping: asyncio.Event,
    learned: asyncio.Event,
) -> AsyncIterator[pb.OptimizeRequest]:
    """The spec with the files it names, and a stop when a cancel is wanted, the job has learned
    what it should, or the worker ends."""
    blobs = {}
    if files.start is not None:
        blobs[_START] = files.start
    if files.resume is not None:
        blobs[_RESUME] = files.resume.data
    ends = (lease.cancel_wanted, learned)
    yield pb.OptimizeRequest(spec=spec)
    # The generator begins when it has the blobs: a stop that comes before them comes in time.
    stopped = any(event.is_set() for event in ends)
    if stopped:
        yield pb.OptimizeRequest(stop=pb.Stop())
    for name, data in blobs.items():
        for piece in wire.chunks(name, data):
            yield pb.OptimizeRequest(blob=piece)
    if stopped:
        return
    interrupts = [asyncio.ensure_future(event.wait()) for event in (*ends, stopping)]
    try:
        await asyncio.wait(interrupts, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for interrupt in interrupts:
            interrupt.cancel()
    yield pb.OptimizeRequest(stop=pb.Stop(suspend=not any(event.is_set() for event in ends)))


async def _show(spec: ResolvedJobSpec, lease: Lease, run: Run) -> None:
    """Lays the saved pictures of base and LoRA side by side."""
    seeds = _seeds(spec)
    pictures = _pictures(spec, run, "base"), _pictures(spec, run, "lora")
    sheet = await asyncio.to_thread(report.samples_png, seeds, *pictures)
    await lease.store("samples.png", sheet)


def _seeds(spec: ResolvedJobSpec) -> range:
    return range(spec.eval.seed, spec.eval.seed + spec.eval.images)


def _pictures(spec: ResolvedJobSpec, run: Run, kind: str) -> list[bytes]:
    return [run.pictures[f"{kind}-{seed}.png"] for seed in _seeds(spec)]


async def _score(spec: ResolvedJobSpec, lease: Lease, targets: Targets, run: Run) -> BaseScore:
    """Has teachers and judge score the saved pictures, and records what else changed in them.
    Returns the base model's score by the first teacher."""
    base, lora = _pictures(spec, run, "base"), _pictures(spec, run, "lora")
    known: list[BaseScore] = []

    async def both(vlm: str) -> tuple[Score, Score]:
        async with scoring(vlm, targets, lease, spec) as scorer:
            mean, each = await scorer.score_each(base)
            listed = image_scores(dict(zip(_seeds(spec), each, strict=True)))
            known.append(base_score(vlm, mean, listed))
            return mean, await scorer.score(lora)

    drift, diversity = changed(run.collateral)
    by_teacher = [await both(use.name) for use in spec.vlm]
    weights = [use.weight for use in spec.vlm]
    taught = mean_score([of_lora for _, of_lora in by_teacher], weights)
    scores = Scores(
        base=mean_score([of_base for of_base, _ in by_teacher], weights),
        lora=taught,
        drift=drift,
        diversity=diversity,
    )
    if spec.judge is not None:
        judged_base, judged_lora = await both(spec.judge)
        scores.judge = JudgeScores(
            vlm=spec.judge,
            base=judged_base,
            lora=judged_lora,
            gap=taught.probability.geometric_mean - judged_lora.probability.geometric_mean,
        )
    # At once: an attempt that measures anew takes back what the one before it said.
    said = json.dumps(list(advice(spec, scores)))
    await lease.record(fields={"scores": scores.model_dump_json(), "advice": said})
    return known[0]
