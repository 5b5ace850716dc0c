"""Turns pydantic's errors about a request into sentences for its author."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from dualprocess.schemas.batches import BatchRequest
from dualprocess.schemas.problems import NO_TEXT, FieldError, field_path
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

#: More faults than these are only counted.
MAX_FAULTS = 30
#: A fitting name is suggested for this many unknown fields only, since the search takes long.
_MAX_SUGGESTIONS = 5
#: Characters shown of a place in a request; it can contain a name that somebody made up.
_MAX_PLACE = 200
#: No suggestion is made for a longer name. The longest field's name has half as many characters.
_MAX_NAME = 40


def field_errors(errors: Iterable[Mapping[str, Any]]) -> list[FieldError]:
    """Each error as a field and a remedy."""
    found: list[FieldError] = []
    suggestions = 0
    for error in errors:
        unknown = error["type"] == "extra_forbidden"
        found.append(_field_error(error, suggest=suggestions < _MAX_SUGGESTIONS))
        suggestions += unknown
    return found


def _field_error(error: Mapping[str, Any], *, suggest: bool) -> FieldError:
    where = _cut(field_path(error["loc"]))
    match error["type"]:
        case "json_invalid":
            return FieldError(field="body", message=f"is not JSON: {error['ctx']['error']}")
        case "missing":
            return FieldError(field=where, message="is missing; it has no default")
        case "extra_forbidden":
            return FieldError(field=where, message=_unknown(error["loc"], suggest=suggest))
        case "string_too_short":
            return FieldError(field=where, message="is empty; write something here")
        case "too_short":
            return FieldError(field=where, message="is empty; at least one is needed")
        case "string_type":
            return FieldError(field=where, message=f"should be a valid string; {NO_TEXT}")
    message = str(error["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    return FieldError(field=where, message=message)


def _cut(place: str) -> str:
    return place if len(place) <= _MAX_PLACE else f"{place[: _MAX_PLACE - 1]}…"


def _unknown(location: Sequence[int | str], *, suggest: bool) -> str:
    *parents, name = (part for part in location if isinstance(part, str))
    if not suggest or len(name) > _MAX_NAME:
        return "is no field of this request; leave it out"
    part = _PARTS.get(parents[-1]) if parents else None
    # A part has few fields, so that a less similar name is suggested too.
    own = difflib.get_close_matches(name, part.model_fields, n=1, cutoff=0.5) if part else []
    close = own or difflib.get_close_matches(name, _FIELD_NAMES, n=1)
    hint = f"did you mean {close[0]!r}?" if close else "leave it out"
    return f"is no field of this request; {hint}"


#: The parts of a job, by the field that holds them.
_PARTS: Mapping[str, type[BaseModel]] = {
    "questions": Question,
    "visual_prompt": VisualPrompt,
    "image": ImageOptions,
    "lora": LoraOptions,
    "start": LoraStart,
    "optimizer": OptimizerOptions,
    "guard": GuardOptions,
    "eval": EvalOptions,
    "webhook": Webhook,
}
_REQUEST_MODELS: tuple[type[BaseModel], ...] = (
    JobSpec,
    BatchRequest,
    ImagesRequest,
    AnswersRequest,
    QuestionsRequest,
    ExpansionRequest,
    DraftQuestion,
    LoraUse,
    *_PARTS.values(),
)
_FIELD_NAMES = sorted({field for model in _REQUEST_MODELS for field in model.model_fields})
