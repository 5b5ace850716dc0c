"""What the processes of generator and VLM have in common around their work."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from dualprocess import printable
from services.common.credentials import CredentialsError
from services.common.errors import StartError
from services.common.freed_memory import keep_freed_memory
from services.common.presets import PresetError
from services.common.settings import GpuServiceSettings
from services.common.telemetry import configure_logging
from services.common.tracing import configure_tracing


def run(
    name: str, main: Callable[[GpuServiceSettings], Awaitable[None]], *library_logs: Any
) -> None:
    """Runs ``main`` with the settings of the command line, until a signal ends it; what keeps it
    from starting is the process's last line. ``library_logs`` are the logging modules of diffusers
    and transformers: the log should have no progress bars, and no hints to install torchvision."""
    keep_freed_memory()
    settings = GpuServiceSettings.from_command_line()
    configure_logging(name, settings.log_level, settings.log_format)
    configure_tracing(name)
    for library in library_logs:
        library.disable_progress_bar()
        library.set_verbosity_error()

    async def work() -> None:
        await main(settings)

    try:
        asyncio.run(work())
    except (PresetError, CredentialsError, StartError) as error:
        sys.exit(printable.lines(f"{name}: {error}"))
