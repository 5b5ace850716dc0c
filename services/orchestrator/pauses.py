"""Waiting that ends early when a process is told to stop."""

from __future__ import annotations

import asyncio
import contextlib


async def pause(seconds: float, stopping: asyncio.Event) -> None:
    """Returns after ``seconds``, or once ``stopping`` is set."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stopping.wait()
