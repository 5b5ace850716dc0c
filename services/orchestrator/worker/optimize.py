"""One optimise job: drive the generator, keep what it tells, score what it made."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping

from dualprocess.schemas import (
    JobStatus,
    JudgeScores,
    PreviewEvent,
    Probability,
    QuestionScore,
    ResolvedJobSpec,
    Score,
    Scores,
    StepEvent,
    StepTimings,
)
from dualprocess.v1 import generator_pb2 as pb
from dualprocess.v1 import generator_pb2_grpc
from services.orchestrator.store.artifacts import ArtifactStore
from services.orchestrator.store.jobs import Jobs
from services.orchestrator.worker import report, wire
from services.orchestrator.worker.lease import Lease
from services.orchestrator.worker.loras import read_lora
from services.orchestrator.worker.scoring import mean_probability, mean_score, scoring

_START_BLOB = "start"


async def optimize(
    spec: ResolvedJobSpec,
    lease: Lease,
    generator: generator_pb2_grpc.GeneratorAsyncStub,
    targets: Mapping[str, str],
    jobs: Jobs,
    artifacts: ArtifactStore,
) -> JobStatus:
    """Runs the job; its status in the end: succeeded, or cancelled with what was learned.

    ``targets`` says where each VLM answers.

    Raises ``grpc.aio.AioRpcError`` when the generator refuses or is lost, ``JobRefused`` when
    the VLM refuses or the LoRA to begin with is gone, and ``LeaseLost``.
    """
    run = _Run(spec, lease)
    start = await _start(spec, jobs, artifacts)
    call = generator.Optimize(_requests(spec, lease, targets, start))
    try:
        async for response in call:
            await run.take(response)
    finally:
        call.cancel()
    for name, data in (
        ("metrics.jsonl", report.metrics_jsonl(run.steps)),
        ("job.json", report.job_json(spec)),
    ):
        await lease.store(name, data)
    if run.steps:
        await lease.store("loss.png", await asyncio.to_thread(report.loss_png, run.steps))
    await _score(spec, lease, targets, run)
    return JobStatus.CANCELLED if run.stopped else JobStatus.SUCCEEDED


async def _start(spec: ResolvedJobSpec, jobs: Jobs, artifacts: ArtifactStore) -> bytes | None:
    """The file of the LoRA to begin with."""
    start = spec.lora.start
    if start is None or start.job is None:
        return None
    return await read_lora(start.job, jobs, artifacts, artifact=start.artifact)


async def _requests(
    spec: ResolvedJobSpec, lease: Lease, targets: Mapping[str, str], start: bytes | None
) -> AsyncIterator[pb.OptimizeRequest]:
    """The spec with the file it names, and a stop when a cancel is wanted."""
    start_blob = _START_BLOB if start is not None else ""
    message = wire.optimize_spec(spec, targets, start_blob=start_blob)
    yield pb.OptimizeRequest(spec=message)
    for piece in wire.chunks(_START_BLOB, start or b""):
        yield pb.OptimizeRequest(blob=piece)
    await lease.cancel_wanted.wait()
    yield pb.OptimizeRequest(stop=pb.Stop())


class _Run:
    """What one run of the generator has told so far."""

    def __init__(self, spec: ResolvedJobSpec, lease: Lease) -> None:
        self.steps: list[StepEvent] = []
        self.pictures: dict[str, bytes] = {}
        self.stopped = False
        self._spec = spec
        self._lease = lease
        self._pieces: defaultdict[str, list[bytes]] = defaultdict(list)
        self._waiting = False

    async def take(self, response: pb.OptimizeResponse) -> None:
        match response.WhichOneof("message"):
            case "waiting":
                self._waiting = True
                await self._lease.waits_for(response.waiting.reason)
            case "step":
                if self._waiting:
                    self._waiting = False
                    await self._lease.waits_for(None)
                await self._take_step(response.step)
            case "preview":
                await self._take_preview(response.preview)
            case "artifact":
                await self._take_piece(response.artifact)
            case "finished":
                self.stopped = response.finished.stopped

    async def _take_step(self, step: pb.Step) -> None:
        event = _step_event(step, self._spec, self._lease.attempt)
        self.steps.append(event)
        await self._lease.record(
            event,
            fields={
                "step": str(event.step),
                "loss": repr(event.loss),
                "probability": event.probability.model_dump_json(),
            },
        )

    async def _take_preview(self, preview: pb.Preview) -> None:
        name = f"preview-{preview.step:06d}.png"
        artifact = await self._lease.store(name, preview.image)
        await self._lease.record(
            PreviewEvent(step=preview.step, seed=preview.seed, artifact=artifact)
        )

    async def _take_piece(self, piece: pb.BlobChunk) -> None:
        self._pieces[piece.name].append(piece.data)
        if not piece.last:
            return
        data = b"".join(self._pieces.pop(piece.name))
        if piece.name.endswith(".png"):
            self.pictures[piece.name] = data
        await self._lease.store(piece.name, data)


def _step_event(step: pb.Step, spec: ResolvedJobSpec, attempt: int) -> StepEvent:
    questions = [
        QuestionScore(
            question=question.question,
            answer=question.answer,
            probability=Probability(
                joint=answer.joint_probability,
                geometric_mean=answer.geometric_mean_probability,
            ),
        )
        for question, answer in zip(spec.questions, step.questions, strict=True)
    ]
    timings = step.timings
    return StepEvent(
        attempt=attempt,
        step=step.step,
        steps=spec.optimizer.steps,
        loss=step.loss,
        probability=mean_probability([question.probability for question in questions]),
        questions=questions,
        grad_norm=step.grad_norm,
        timings=StepTimings(
            forward=timings.forward,
            vlm=timings.vlm,
            wire=timings.wire,
            backward=timings.backward,
            total=timings.total,
        ),
    )


async def _score(
    spec: ResolvedJobSpec, lease: Lease, targets: Mapping[str, str], run: _Run
) -> None:
    """Lays the saved pictures of base and LoRA side by side, and lets teachers and judge score
    them."""
    seeds = range(spec.eval.seed, spec.eval.seed + spec.eval.images)
    base = [run.pictures[f"base-{seed}.png"] for seed in seeds]
    lora = [run.pictures[f"lora-{seed}.png"] for seed in seeds]
    sheet = await asyncio.to_thread(report.samples_png, seeds, base, lora)
    await lease.store("samples.png", sheet)

    async def both(vlm: str) -> tuple[Score, Score]:
        async with scoring(vlm, targets, lease, spec) as scorer:
            return await scorer.score(base), await scorer.score(lora)

    by_teacher = [await both(use.name) for use in spec.vlm]
    weights = [use.weight for use in spec.vlm]
    scores = Scores(
        base=mean_score([of_base for of_base, _ in by_teacher], weights),
        lora=mean_score([of_lora for _, of_lora in by_teacher], weights),
    )
    if spec.judge is not None:
        judged_base, judged_lora = await both(spec.judge)
        scores.judge = JudgeScores(vlm=spec.judge, base=judged_base, lora=judged_lora)
    await lease.record(fields={"scores": scores.model_dump_json()})
