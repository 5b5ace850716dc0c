"""What `GET /v1/jobs/{id}/events` streams."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dualprocess.schemas.fields import Model
from dualprocess.schemas.jobs import Artifact, JobStatus, Probability, QuestionScore


class StatusEvent(Model):
    type: Literal["status"] = "status"
    status: JobStatus
    attempt: int = 0
    waiting_for: str | None = None
    error: str | None = None


class StepTimings(Model):
    """Seconds."""

    forward: float
    vlm: float
    wire: float
    backward: float
    total: float


class StepEvent(Model):
    type: Literal["step"] = "step"
    attempt: int
    step: Annotated[int, Field(description="1-based.")]
    steps: int
    loss: float
    probability: Probability
    questions: list[QuestionScore]
    grad_norm: float
    timings: StepTimings
    drift: Annotated[
        float | None,
        Field(description="Of the step's own images; where an anchor measures it anyway."),
    ] = None
    diversity: Annotated[
        float | None, Field(description="Likewise, of a batch of two images or more.")
    ] = None


class SkippedStepEvent(Model):
    """A step that changed nothing, since image, loss or gradient was not a number."""

    type: Literal["skipped"] = "skipped"
    attempt: int
    step: Annotated[int, Field(description="1-based.")]
    steps: int
    reason: str


AnyStepEvent = StepEvent | SkippedStepEvent


class PreviewEvent(Model):
    """Base (left) beside LoRA (right), same seed, after a step."""

    type: Literal["preview"] = "preview"
    step: int
    seed: int
    artifact: Artifact


class ArtifactEvent(Model):
    type: Literal["artifact"] = "artifact"
    artifact: Artifact


class WarningEvent(Model):
    """What the job's owner should know, as in the job's `warnings`."""

    type: Literal["warning"] = "warning"
    message: str


Event = Annotated[
    StatusEvent | AnyStepEvent | PreviewEvent | ArtifactEvent | WarningEvent,
    Field(discriminator="type"),
]


class EventRecord(Model):
    """An event and its place in the job's stream: the SSE ``id``."""

    id: str
    event: Event
