"""Faults, each at the field where a visitor can correct it."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from dualprocess.errors import ApiError, DualProcessError
from dualprocess.schemas.problems import field_path

Shown = dict[str, Any]

#: Errors that the page shows to the visitor.
EXPECTED = (DualProcessError, ValidationError)

NOTHING: Shown = {"title": "", "fields": []}


def fault(title: str, **fields: str) -> Shown:
    """A fault with a title, and with a sentence for each of these fields."""
    return {
        "title": title,
        "fields": [{"field": name, "message": message} for name, message in fields.items()],
    }


def faults_of(error: Exception) -> Shown:
    """One of ``EXPECTED`` as the page shows it."""
    if isinstance(error, ValidationError):
        fields = [
            {"field": field_path(one["loc"]), "message": _plain(one["type"], one["msg"])}
            for one in error.errors()
        ]
        return {"title": "Something is missing or can't be used", "fields": fields}
    if isinstance(error, ApiError):
        problem = error.problem
        title = ": ".join(filter(None, (problem.title, None if problem.errors else problem.detail)))
        return {"title": title, "fields": [one.model_dump() for one in problem.errors]}
    return {"title": str(error), "fields": []}


def _plain(kind: str, message: str) -> str:
    match kind:
        case "string_too_short" | "missing":
            return "is empty; write something here"
        case "too_short":
            return "is empty; at least one is needed"
    message = message.removeprefix("Value error, ").removeprefix("Input ")
    return message[:1].lower() + message[1:]
