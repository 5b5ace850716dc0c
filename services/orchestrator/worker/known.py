"""Keeps the base model's score for the jobs that will be submitted later."""

from __future__ import annotations

import asyncio

from dualprocess.schemas import BaseScore, ResolvedImagesSpec, ResolvedJobSpec
from services.orchestrator.is_needed import asked_of
from services.orchestrator.worker.stores import Stores


async def remember(
    spec: ResolvedJobSpec | ResolvedImagesSpec, score: BaseScore, owner: str, stores: Stores
) -> None:
    """``score`` is the base model's, by the spec's first VLM."""
    asked = asked_of(spec)
    assert asked is not None
    await stores.base_scores.remember(owner, await asyncio.to_thread(asked.digest), score)
