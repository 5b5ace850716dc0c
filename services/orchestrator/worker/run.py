"""Collects what one run of the generator reports about a job."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Sequence

from dualprocess.schemas import (
    AnyStepEvent,
    PreviewEvent,
    Probability,
    QuestionScore,
    ResolvedJobSpec,
    SkippedStepEvent,
    StepEvent,
    StepTimings,
)
from dualprocess.v1 import generator_pb2 as pb
from services.orchestrator.worker.checkpoints import Checkpoints
from services.orchestrator.worker.enough import enough
from services.orchestrator.worker.lease import Lease
from services.orchestrator.worker.scoring import mean_probability


class Run:
    """``steps`` are those that were made before it, then its own. ``pictures`` are the files of the
    evaluation, by name, ``collateral`` what changed in them. ``learned`` is set when the run may
    end before its last step, and ``why`` says why. ``failed`` says why it ended before, if going on
    was of no use."""

    def __init__(
        self,
        spec: ResolvedJobSpec,
        lease: Lease,
        checkpoints: Checkpoints,
        steps: Sequence[AnyStepEvent] = (),
    ) -> None:
        self.steps = list(steps)
        #: Seconds that it did not compute, since it waited for another service.
        self.waited = 0.0
        self._before = len(self.steps)
        self.pictures: dict[str, bytes] = {}
        self.collateral: pb.Collateral | None = None
        self.stopped = False
        self.suspended = False
        self.failed = ""
        self.learned = asyncio.Event()
        self.why: str | None = None
        self._checkpoints = checkpoints
        self._spec = spec
        self._lease = lease
        self._pieces: defaultdict[str, list[bytes]] = defaultdict(list)
        self._waits_since: float | None = None

    @property
    def step_seconds(self) -> list[float]:
        """How long each step took that this run made."""
        made = self.steps[self._before :]
        return [step.timings.total for step in made if isinstance(step, StepEvent)]

    async def take(self, response: pb.OptimizeResponse) -> None:
        match response.WhichOneof("message"):
            case "waiting":
                self._waits_since = self._waits_since or time.monotonic()
                await self._lease.waits_for(response.waiting.reason)
            case "step":
                await self._goes_on()
                await self._take_step(response.step)
            case "skipped":
                await self._goes_on()
                await self._take_skipped(response.skipped)
            case "preview":
                await self._take_preview(response.preview)
            case "artifact":
                file = self._whole(response.artifact)
                if file is not None:
                    await self._take_file(response.artifact.name, file)
            case "warnings":
                for sentence in response.warnings.sentences:
                    await self._lease.warn(sentence)
            case "collateral":
                self.collateral = response.collateral
            case "checkpoint":
                file = self._whole(response.checkpoint.piece)
                if file is not None:
                    await self._checkpoints.keep(response.checkpoint.step, file)
            case "finished":
                self.stopped = response.finished.stopped
                self.suspended = response.finished.suspended
                self.failed = response.finished.failed

    async def _goes_on(self) -> None:
        if self._waits_since is not None:
            self.waited += time.monotonic() - self._waits_since
            self._waits_since = None
            await self._lease.waits_for(None)

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
        if not self.learned.is_set() and (why := enough(self._spec, self.steps)):
            self.why = why
            self.learned.set()

    async def _take_skipped(self, skipped: pb.SkippedStep) -> None:
        event = SkippedStepEvent(
            attempt=self._lease.attempt,
            step=skipped.step,
            steps=self._spec.optimizer.steps,
            reason=skipped.reason,
        )
        self.steps.append(event)
        fields = {"step": str(event.step), "skipped": str(skipped_steps(self.steps))}
        await self._lease.record(event, fields=fields)

    async def _take_preview(self, preview: pb.Preview) -> None:
        name = f"preview-{preview.step:06d}.png"
        artifact = await self._lease.store(name, preview.image)
        await self._lease.record(
            PreviewEvent(step=preview.step, seed=preview.seed, artifact=artifact)
        )

    def _whole(self, piece: pb.BlobChunk) -> bytes | None:
        """The file that the piece completes, if it does."""
        self._pieces[piece.name].append(piece.data)
        return b"".join(self._pieces.pop(piece.name)) if piece.last else None

    async def _take_file(self, name: str, data: bytes) -> None:
        if name.endswith(".png"):
            self.pictures[name] = data
        await self._lease.store(name, data)


def changed(collateral: pb.Collateral | None) -> tuple[float | None, float | None]:
    """Drift and diversity, as far as they were measured."""
    if collateral is None:
        return None, None
    diversity = collateral.diversity if collateral.HasField("diversity") else None
    return collateral.drift, diversity


def skipped_steps(steps: Sequence[AnyStepEvent]) -> int:
    """How many of them changed nothing."""
    return sum(isinstance(step, SkippedStepEvent) for step in steps)


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
    drift, diversity = changed(step.collateral if step.HasField("collateral") else None)
    return StepEvent(
        attempt=attempt,
        step=step.step,
        steps=spec.optimizer.steps,
        loss=step.loss,
        probability=mean_probability(
            [question.probability for question in questions],
            [question.weight for question in spec.questions],
        ),
        questions=questions,
        grad_norm=step.grad_norm,
        timings=StepTimings(
            forward=timings.forward,
            vlm=timings.vlm,
            wire=timings.wire,
            backward=timings.backward,
            total=timings.total,
        ),
        drift=drift,
        diversity=diversity,
    )
