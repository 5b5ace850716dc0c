"""What is known of a base model before a job teaches it."""

from __future__ import annotations

import asyncio

from dualprocess.schemas import BaseScore, ResolvedJobSpec
from services.orchestrator.api.auth import Caller
from services.orchestrator.api.state import State
from services.orchestrator.is_needed import asked_of


async def known_base(spec: ResolvedJobSpec, state: State, caller: Caller) -> BaseScore | None:
    """The score that the caller's own images or jobs of the last days gave it."""
    asked = asked_of(spec)
    if asked is None:
        return None
    digest = await asyncio.to_thread(asked.digest)
    return await state.base_scores.recall(caller.owner, digest)
