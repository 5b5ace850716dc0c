"""The worker's process: settings, logs, signals."""

from __future__ import annotations

import asyncio
import signal
import sys

from dualprocess import printable
from services.common.credentials import CredentialsError
from services.common.metrics import show_metrics
from services.common.telemetry import configure_logging
from services.common.tracing import configure_tracing
from services.orchestrator.store.artifacts import StoreRefused
from services.orchestrator.worker.alive import touch_fault
from services.orchestrator.worker.app import Worker
from services.orchestrator.worker.settings import WorkerSettings


async def main(settings: WorkerSettings) -> None:
    worker = Worker(settings)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, worker.stop)
    await worker.run()


def run() -> None:
    """Works until a signal ends it, with the settings of the command line."""
    settings = WorkerSettings.from_command_line()
    configure_logging("worker", settings.log_level, settings.log_format)
    configure_tracing("worker")
    settings.check_redis()
    if settings.alive_file is not None and (fault := touch_fault(settings.alive_file)):
        settings.refuse("alive_file", fault)
    show_metrics(settings)
    try:
        asyncio.run(main(settings))
    except StoreRefused as error:
        settings.refuse("artifacts", str(error))
    except CredentialsError as error:
        sys.exit(printable.lines(f"worker: {error}"))
