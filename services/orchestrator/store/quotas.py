"""How much one API key may ask for."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Quotas(BaseModel):
    """Limits of a key. ``queued`` and ``running`` are held by the Lua scripts, atomically."""

    model_config = ConfigDict(frozen=True)

    queued: Annotated[int, Field(ge=1, description="Jobs in the queue; more are refused.")]
    running: Annotated[int, Field(ge=1, description="Jobs that run at once; more wait.")]
    steps: Annotated[int, Field(ge=1, description="Optimiser steps of one job.")]
    body_bytes: Annotated[int, Field(ge=1, description="Bytes of one request's body.")]


class QuotaExceeded(Exception):
    """A key has as much as it may have, for now."""

    def __init__(self, quota: str, limit: int) -> None:
        super().__init__(f"the quota {quota} of {limit} is used up")
        self.quota = quota
        self.limit = limit
