"""RFC 9457 problems: how every error of the API looks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from dualprocess.schemas.fields import Model

#: The names that pydantic gives to the forms of a field that may be one value or a list.
ONE, SEVERAL = "one", "several"

#: The remedy for a number, a date or a switch where a text belongs.
NO_TEXT = "if it is meant as a text, put it in quotes"

_NOT_A_FIELD = ("body", "query", "header", "path", ONE, SEVERAL)


def field_path(location: Sequence[int | str]) -> str:
    """The place where pydantic found a fault, as a user writes it: questions.0.answer."""
    parts = [str(part) for part in location if part not in _NOT_A_FIELD]
    return ".".join(parts) or "body"


class FieldError(Model):
    """One thing wrong with a request."""

    field: Annotated[str, Field(description="The place, as a path like questions.0.answer.")]
    message: Annotated[str, Field(description="What is wrong, and what to write instead.")]


class Problem(Model):
    """RFC 9457 ``application/problem+json``."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str | None = None
    instance: str | None = None
    #: What whoever runs the service finds in its log.
    request_id: str | None = None
    errors: list[FieldError] = []

    def __str__(self) -> str:
        lines = [": ".join(filter(None, (self.title, self.detail)))]
        lines += [f"{error.field}: {error.message}" for error in self.errors]
        return "\n".join(lines)
