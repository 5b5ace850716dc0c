"""A job, its scores and its files."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, TypeAlias

from pydantic import Field

from dualprocess.schemas.base_scores import BaseScore
from dualprocess.schemas.fields import JobId, Metadata, Model
from dualprocess.schemas.specs import ResolvedImagesSpec, ResolvedJobSpec
from dualprocess.schemas.webhooks import WebhookState
from dualprocess.schemas.words import (
    Answers,
    ExpandedPrompt,
    ResolvedAnswersSpec,
    ResolvedExpansionSpec,
    ResolvedQuestionsSpec,
    WrittenQuestions,
)
from dualprocess.schemas.work import WorkUnits

#: The owner of jobs that were made while no API keys were needed.
ANONYMOUS = "anonymous"


class JobStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        return self in (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED)


class JobKind(StrEnum):
    OPTIMIZE = "optimize"
    IMAGES = "images"
    ANSWERS = "answers"
    QUESTIONS = "questions"
    EXPANSION = "expansion"


class Probability(Model):
    """Probability of the right answer: of all its tokens together, and their geometric mean
    (VQAScore)."""

    joint: float
    geometric_mean: float


class QuestionScore(Model):
    """One question, over the images it was asked about."""

    question: str
    answer: str
    probability: Probability
    correct: Annotated[
        float | None, Field(description="Share of images with the right answer, if it was counted.")
    ] = None


class Score(Model):
    """All questions over all images: the mean of the questions' values, weighted by the questions'
    weights."""

    probability: Probability
    correct: float
    questions: list[QuestionScore]


class ImageScore(Model):
    """All questions over one image, as in ``Score``."""

    seed: Annotated[int, Field(description="Its file is `image-SEED.png`.")]
    probability: Probability
    correct: float


class JudgeScores(Model):
    """Scores by a VLM that did not teach. If it disagrees, the LoRA only fooled its teacher."""

    vlm: str
    base: Score
    lora: Score
    gap: Annotated[
        float | None,
        Field(
            description="The teacher's probability with the LoRA minus the judge's. Far above 0 "
            "the LoRA may only have fooled the teacher."
        ),
    ] = None


class Scores(Model):
    """Scores by the VLM that taught; if there are several, their weighted mean. Drift and diversity
    say what else changed; they need no VLM, and compare the autoencoder's latents of the evaluation
    images."""

    base: Score | None = None
    lora: Score | None = None
    judge: JudgeScores | None = None
    images: Annotated[
        list[ImageScore],
        Field(
            description="Of a job of the kind images: each image that was kept, the best first. "
            "`base` or `lora` are means over all that were drawn."
        ),
    ] = []
    drift: Annotated[
        float | None,
        Field(
            description="How far an image with the LoRA is from the base model's image of the "
            "same seed: 0 is the same picture, about 1 a different one."
        ),
    ] = None
    diversity: Annotated[
        float | None,
        Field(
            description="How far two images with the LoRA are from each other, divided by the "
            "same distance for the base model: below 1 they have become more alike."
        ),
    ] = None


class Artifact(Model):
    """A file of a job: ``GET /v1/jobs/{id}/artifacts/{name}``."""

    name: str
    media_type: str
    bytes: int
    sha256: str


#: The resolved spec of each kind of job.
ResolvedSpec: TypeAlias = (
    ResolvedJobSpec
    | ResolvedImagesSpec
    | ResolvedAnswersSpec
    | ResolvedQuestionsSpec
    | ResolvedExpansionSpec
)


class Job(Model):
    """A job, as it is now."""

    id: JobId
    kind: JobKind
    status: JobStatus
    name: str | None = None
    metadata: Metadata = {}
    owner: Annotated[str, Field(description="Id of the API key that made it.")] = ANONYMOUS
    batch: Annotated[JobId | None, Field(description="The batch that it was submitted with.")] = (
        None
    )
    generator: Annotated[str, Field(description="Empty for a job that needs none.")]
    vlms: Annotated[
        list[str], Field(description="The VLMs that it needs: teachers, and the judge.")
    ]
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    deadline_at: datetime | None = None
    work: Annotated[
        WorkUnits | None,
        Field(
            description="Counts against the key's quota until the job ends; null in jobs of "
            "versions that did not count it."
        ),
    ] = None
    position: Annotated[
        int | None, Field(description="Jobs ahead in the queue; only while queued.")
    ] = None
    attempt: Annotated[
        int, Field(description="How often a worker has taken it; 0 while it was never taken.")
    ] = 0
    waiting_for: Annotated[
        str | None, Field(description="What a running or queued job is waiting for.")
    ] = None
    step: int = 0
    steps: int = 0
    skipped: Annotated[
        int,
        Field(
            description="Number of steps that changed nothing, since the loss or gradient "
            "was not a number."
        ),
    ] = 0
    checkpoint: Annotated[
        int | None, Field(description="If it is interrupted now, it goes on after this step.")
    ] = None
    loss: float | None = None
    probability: Probability | None = None
    scores: Scores = Scores()
    base: Annotated[
        BaseScore | None,
        Field(
            description="What was known of the base model before the job, from images or jobs of "
            "the last days with the same prompt, questions, image settings and (first) VLM; of a "
            "job of the kind images without LoRAs, what it found itself."
        ),
    ] = None
    warnings: Annotated[
        list[str], Field(description="What its owner should know, with what to do about it.")
    ] = []
    error: Annotated[str | None, Field(description="Why it failed, as a sentence.")] = None
    stopped_because: Annotated[
        str | None,
        Field(description="Why it ended before its last step, unless somebody cancelled it."),
    ] = None
    causes: Annotated[
        list[str], Field(description="Why each earlier attempt ended, and other problems.")
    ] = []
    artifacts: list[Artifact] = []
    webhook: WebhookState | None = None
    result: Annotated[
        Answers | WrittenQuestions | ExpandedPrompt | None,
        Field(
            description="The words that a job of the kind answers, questions or expansion produced."
        ),
    ] = None
    spec: ResolvedSpec


class JobPage(Model):
    jobs: list[Job]
    unreadable: Annotated[
        list[JobId],
        Field(
            description="Ids of this page's jobs that this version can't show, since a newer "
            "version of the service stored them."
        ),
    ] = []
    next: Annotated[str | None, Field(description="`cursor` of the next page, if any.")] = None
