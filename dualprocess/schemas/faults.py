"""What pydantic finds wrong with a request, in sentences for who wrote it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from dualprocess.schemas.batches import BatchRequest
from dualprocess.schemas.problems import FieldError, field_path
from dualprocess.schemas.questions import Question, VisualPrompt
from dualprocess.schemas.settings import (
    EvalOptions,
    GuardOptions,
    ImageOptions,
    LoraOptions,
    LoraStart,
    OptimizerOptions,
)
from dualprocess.schemas.specs import ImagesRequest, JobSpec, LoraUse
from dualprocess.schemas.webhooks import Webhook
from dualprocess.schemas.words import (
    AnswersRequest,
    DraftQuestion,
    ExpansionRequest,
    QuestionsRequest,
)


def field_error(error: Mapping[str, Any]) -> FieldError:
    """The finding as a field and a remedy."""
    where = field_path(error["loc"])
    match error["type"]:
        case "json_invalid":
            return FieldError(field="body", message=f"is not JSON: {error['ctx']['error']}")
        case "missing":
            return FieldError(field=where, message="is missing; it has no default")
        case "extra_forbidden":
            return FieldError(field=where, message=_unknown(str(error["loc"][-1])))
        case "string_too_short":
            return FieldError(field=where, message="is empty; write something here")
        case "too_short":
            return FieldError(field=where, message="is empty; at least one is needed")
    message = str(error["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    return FieldError(field=where, message=message)


def _unknown(name: str) -> str:
    close = difflib.get_close_matches(name, _FIELD_NAMES, n=1)
    hint = f"did you mean {close[0]!r}?" if close else "leave it out"
    return f"is no field of this request; {hint}"


_REQUEST_MODELS: tuple[type[BaseModel], ...] = (
    JobSpec,
    BatchRequest,
    ImagesRequest,
    AnswersRequest,
    QuestionsRequest,
    ExpansionRequest,
    DraftQuestion,
    Question,
    VisualPrompt,
    LoraUse,
    ImageOptions,
    LoraOptions,
    LoraStart,
    OptimizerOptions,
    GuardOptions,
    EvalOptions,
    Webhook,
)
_FIELD_NAMES = sorted({field for model in _REQUEST_MODELS for field in model.model_fields})
