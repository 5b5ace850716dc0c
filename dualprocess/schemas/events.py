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
        Field(
            description="Drift of the step's own images; only with an anchor, which computes "
            "the base model's images."
        ),
    ] = None
    diversity: Annotated[
        float | None,
        Field(
            description="Diversity of the step's own images; only with an anchor "
            "and a batch of two images or more."
        ),
    ] = None


class SkippedStepEvent(Model):
    """A step that changed nothing, since the image, the loss or the gradient was not a number."""

    type: Literal["skipped"] = "skipped"
    attempt: int
    step: Annotated[int, Field(description="1-based.")]
    steps: int
    reason: str


AnyStepEvent = StepEvent | SkippedStepEvent


class PreviewEvent(Model):
    """A picture after a step: base (left) and LoRA (right) with the same seed."""

    type: Literal["preview"] = "preview"
    step: int
    seed: int
    artifact: Artifact


class ArtifactEvent(Model):
    type: Literal["artifact"] = "artifact"
    artifact: Artifact


class WarningEvent(Model):
    """Something that the job's owner should know; also in the job's `warnings`."""

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
