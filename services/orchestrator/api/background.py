"""What an API process does besides answering: it sends messages, and cleans up."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from services.orchestrator.api.settings import ApiSettings
from services.orchestrator.api.state import State
from services.orchestrator.housekeeping import Housekeeping
from services.orchestrator.store.outbox import Outbox
from services.orchestrator.webhooks.courier import Courier
from services.orchestrator.webhooks.post import Poster


@contextlib.asynccontextmanager
async def background(settings: ApiSettings, state: State) -> AsyncIterator[None]:
    """Both run until the context ends."""
    courier = Courier(
        Outbox(state.redis),
        state.jobs,
        Poster(state.addresses),
        pauses=settings.webhook_pauses,
        poll_seconds=settings.poll_seconds,
    )
    # Not a cancel: redis-py can lose one.
    stopping = asyncio.Event()
    housekeeping = Housekeeping(
        settings, state.redis, state.artifacts, poll_seconds=settings.poll_seconds
    )
    tasks = [asyncio.create_task(work.run(stopping)) for work in (courier, housekeeping)]
    try:
        yield
    finally:
        stopping.set()
        await asyncio.gather(*tasks)
