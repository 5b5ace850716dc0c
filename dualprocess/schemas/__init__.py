"""The REST contract as pydantic models, shared by server, SDK and command line."""

from dualprocess.schemas.batches import Batch, BatchEntry, BatchRequest
from dualprocess.schemas.events import (
    ArtifactEvent,
    Event,
    EventRecord,
    PreviewEvent,
    StatusEvent,
    StepEvent,
    StepTimings,
)
from dualprocess.schemas.fields import ImageBytes
from dualprocess.schemas.jobs import (
    ANONYMOUS,
    Artifact,
    Job,
    JobKind,
    JobPage,
    JobStatus,
    JudgeScores,
    Probability,
    QuestionScore,
    Score,
    Scores,
)
from dualprocess.schemas.messages import WebhookMessage
from dualprocess.schemas.models import GeneratorInfo, ModelList, VlmInfo
from dualprocess.schemas.problems import FieldError, Problem
from dualprocess.schemas.questions import DEFAULT_POSTFIX, Question, VisualPrompt
from dualprocess.schemas.settings import (
    EvalOptions,
    EvalSettings,
    ImageOptions,
    ImageSettings,
    JobLoraSettings,
    LoraOptions,
    LoraSettings,
    LoraStart,
    OptimizerOptions,
    OptimizerSettings,
)
from dualprocess.schemas.specs import (
    ImagesRequest,
    JobSpec,
    LoraUse,
    ResolvedImagesSpec,
    ResolvedJobSpec,
    VlmUse,
)
from dualprocess.schemas.webhooks import Webhook, WebhookState, WebhookStatus

__all__ = [
    "ANONYMOUS",
    "DEFAULT_POSTFIX",
    "Artifact",
    "ArtifactEvent",
    "Batch",
    "BatchEntry",
    "BatchRequest",
    "EvalOptions",
    "EvalSettings",
    "Event",
    "EventRecord",
    "FieldError",
    "GeneratorInfo",
    "ImageBytes",
    "ImageOptions",
    "ImageSettings",
    "ImagesRequest",
    "Job",
    "JobKind",
    "JobLoraSettings",
    "JobPage",
    "JobSpec",
    "JobStatus",
    "JudgeScores",
    "LoraOptions",
    "LoraSettings",
    "LoraStart",
    "LoraUse",
    "ModelList",
    "OptimizerOptions",
    "OptimizerSettings",
    "PreviewEvent",
    "Probability",
    "Problem",
    "Question",
    "QuestionScore",
    "ResolvedImagesSpec",
    "ResolvedJobSpec",
    "Score",
    "Scores",
    "StatusEvent",
    "StepEvent",
    "StepTimings",
    "VisualPrompt",
    "VlmInfo",
    "VlmUse",
    "Webhook",
    "WebhookMessage",
    "WebhookState",
    "WebhookStatus",
]
