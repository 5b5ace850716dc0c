"""The limits of one API key."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from services.orchestrator.work import THOUSANDTHS


class Quotas(BaseModel):
    """Limits of a key. The Lua scripts check ``queued``, ``running`` and ``work``, atomically. A
    key that is older than the limit of work has none."""

    model_config = ConfigDict(frozen=True)

    queued: Annotated[int, Field(ge=1, description="Jobs that may be queued; more are refused.")]
    running: Annotated[int, Field(ge=1, description="Jobs that may run at once; more wait.")]
    steps: Annotated[int, Field(ge=1, description="Optimiser steps that one job may have.")]
    body_bytes: Annotated[int, Field(ge=1, description="Bytes that one request's body may have.")]
    work: Annotated[
        int | None,
        Field(ge=1, description="Work that all jobs that have not ended may have together."),
    ] = None


class QuotaExceeded(Exception):
    """A key has reached one of its limits for now."""

    def __init__(self, quota: str, limit: int) -> None:
        super().__init__(f"the quota {quota} of {limit} is used up")
        self.quota = quota
        self.limit = limit


class WorkExceeded(QuotaExceeded):
    """A request has more work than is ``left`` of the quota."""

    def __init__(self, limit: int, left: float) -> None:
        super().__init__("work", limit)
        self.left = left


def known_or_exceeded(answer: str) -> tuple[str, str]:
    """The id and request hash that a submitting script returns. Raises ``QuotaExceeded`` if it
    returns an exceeded quota instead."""
    first, _, rest = answer.partition(" ")
    if first == "queued":
        raise QuotaExceeded(first, int(rest))
    if first == "work":
        limit, used = map(int, rest.split())
        raise WorkExceeded(limit, max(limit - used / THOUSANDTHS, 0))
    return first, rest
