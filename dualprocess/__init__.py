"""Dual-process image generation as a service: client, schemas and errors."""

from importlib.metadata import version as _version

from dualprocess.async_client import AsyncClient
from dualprocess.client import Client
from dualprocess.errors import (
    ApiError,
    ConnectionFailed,
    DualProcessError,
    InvalidRequest,
    JobCancelled,
    JobFailed,
    NotFound,
    RateLimited,
    ServiceUnavailable,
    Unauthorized,
)
from dualprocess.schemas import (
    Batch,
    BatchRequest,
    EvalOptions,
    ImageOptions,
    ImagesRequest,
    Job,
    JobSpec,
    JobStatus,
    LoraOptions,
    LoraStart,
    LoraUse,
    OptimizerOptions,
    Question,
    VisualPrompt,
    VlmUse,
    Webhook,
    WebhookMessage,
)

__version__ = _version("dualprocess")

__all__ = [
    "ApiError",
    "AsyncClient",
    "Batch",
    "BatchRequest",
    "Client",
    "ConnectionFailed",
    "DualProcessError",
    "EvalOptions",
    "ImageOptions",
    "ImagesRequest",
    "InvalidRequest",
    "Job",
    "JobCancelled",
    "JobFailed",
    "JobSpec",
    "JobStatus",
    "LoraOptions",
    "LoraStart",
    "LoraUse",
    "NotFound",
    "OptimizerOptions",
    "Question",
    "RateLimited",
    "ServiceUnavailable",
    "Unauthorized",
    "VisualPrompt",
    "VlmUse",
    "Webhook",
    "WebhookMessage",
    "__version__",
]
