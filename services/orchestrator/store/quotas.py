"""The limits of one API key."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Quotas(BaseModel):
    """Limits of a key. ``queued`` and ``running`` are held by the Lua scripts, atomically."""

    model_config = ConfigDict(frozen=True)

    queued: Annotated[int, Field(ge=1, description="Jobs that may be queued; more are refused.")]
    running: Annotated[int, Field(ge=1, description="Jobs that may run at once; more wait.")]
    steps: Annotated[int, Field(ge=1, description="Optimiser steps that one job may have.")]
    body_bytes: Annotated[int, Field(ge=1, description="Bytes that one request's body may have.")]


class QuotaExceeded(Exception):
    """A key has reached one of its limits for now."""

    def __init__(self, quota: str, limit: int) -> None:
        super().__init__(f"the quota {quota} of {limit} is used up")
        self.quota = quota
        self.limit = limit
