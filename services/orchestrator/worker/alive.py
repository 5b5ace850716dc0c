"""A file that is young while the worker's loop runs, for what watches a process without a port.

Redis, generator or store may be away meanwhile: that is not mended by another process.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from services.orchestrator.pauses import pause

log = logging.getLogger(__name__)

EVERY_SECONDS = 5.0


def touch_fault(path: Path) -> str | None:
    """Why the file can't be touched, if it can't; it is touched if it can."""
    try:
        path.touch()
    except OSError as error:
        return f"can't be written ({error.strerror}); name a file in a folder that is there"
    return None


async def stay_alive(path: Path | None, stopping: asyncio.Event) -> None:
    """Touches the file, if there is one, until ``stopping``."""
    while path is not None and not stopping.is_set():
        if fault := touch_fault(path):
            log.warning("--alive-file %s", fault)
        await pause(EVERY_SECONDS, stopping)
