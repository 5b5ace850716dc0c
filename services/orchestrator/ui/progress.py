"""The progress of a job, from its events or files: curves, previews, time left."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from pydantic import TypeAdapter

from dualprocess.schemas import (
    Artifact,
    Event,
    Job,
    JobStatus,
    PreviewEvent,
    QuestionScore,
    SkippedStepEvent,
    StatusEvent,
    StepEvent,
)
from services.orchestrator.ui.curves import Curve

#: The time left is estimated from this many steps.
_RECENT = 20
_PREVIEW = re.compile(r"preview-(\d+)\.png")
_SCORES = TypeAdapter(list[QuestionScore])


@dataclass
class Progress:
    status: JobStatus
    steps: int
    step: int = 0
    waiting_for: str | None = None
    losses: Curve = field(default_factory=list)
    #: One curve for each question, in the job's order.
    probabilities: list[Curve] = field(default_factory=list)
    #: With the steps that measured them.
    drift: Curve = field(default_factory=list)
    diversity: Curve = field(default_factory=list)
    #: Step → the picture of base beside LoRA that was made after it.
    previews: dict[int, Artifact] = field(default_factory=dict)
    _seconds: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT))

    @classmethod
    def of(cls, job: Job) -> Progress:
        """The progress that the job itself reports, with empty curves."""
        found = ((_PREVIEW.fullmatch(file.name), file) for file in job.artifacts)
        previews = {int(match[1]): file for match, file in found if match}
        return cls(
            job.status,
            job.steps,
            job.step,
            job.waiting_for,
            previews=dict(sorted(previews.items())),
        )

    def take(self, event: Event) -> None:
        match event:
            case StatusEvent():
                self.status, self.waiting_for = event.status, event.waiting_for
            case PreviewEvent():
                self.previews[event.step] = event.artifact
            case StepEvent():
                changed = event.drift, event.diversity
                self._add(event.step, event.loss, event.questions, *changed)
                self.step, self.steps = event.step, event.steps
                self._seconds.append(event.timings.total)
            case SkippedStepEvent():
                self.step, self.steps = event.step, event.steps

    def take_metrics(self, text: str) -> None:
        """Reads all steps of an ended job from its metrics.jsonl."""
        for data in map(json.loads, text.splitlines()):
            # A skipped step has a reason instead of measurements.
            if "loss" in data:
                scores = _SCORES.validate_python(data["questions"])
                # Older jobs have neither.
                changed = data.get("drift"), data.get("diversity")
                self._add(data["step"], data["loss"], scores, *changed)

    def _add(
        self,
        step: int,
        loss: float,
        scores: Sequence[QuestionScore],
        drift: float | None,
        diversity: float | None,
    ) -> None:
        if not self.probabilities:
            self.probabilities = [[] for _ in scores]
        # An interrupted job continues from a checkpoint, so the steps after it come again.
        for curve in (self.losses, *self.probabilities, self.drift, self.diversity):
            while curve and curve[-1][0] >= step:
                curve.pop()
        self.losses.append((step, loss))
        for curve, value in ((self.drift, drift), (self.diversity, diversity)):
            if value is not None:
                curve.append((step, value))
        for curve, score in zip(self.probabilities, scores, strict=False):
            curve.append((step, score.probability.geometric_mean))

    @property
    def seconds_left(self) -> float | None:
        """Estimated for a running job that has made a step; else ``None``."""
        if self.status != JobStatus.RUNNING or not self._seconds:
            return None
        return (self.steps - self.step) * sum(self._seconds) / len(self._seconds)
