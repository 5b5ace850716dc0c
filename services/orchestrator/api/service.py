"""The API's process: settings, logs, the HTTP server."""

from __future__ import annotations

import gc
import sys

import uvicorn

from dualprocess import printable
from dualprocess.connection import certificates_fault
from services.common.exposure import exposure_fault
from services.common.extras import page_fault
from services.common.presets import PresetError
from services.common.telemetry import configure_logging
from services.common.tracing import configure_tracing
from services.orchestrator.api.app import create_app
from services.orchestrator.api.http_protocol import MAX_HEAD, BoundedHead
from services.orchestrator.api.open_files import allow_files
from services.orchestrator.api.settings import ApiSettings
from services.orchestrator.store.artifacts import StoreRefused

#: Requests in hand get this long to end after SIGTERM.
DRAIN_SECONDS = 3


def run() -> None:
    """Serves until a signal ends it, with the settings of the command line."""
    settings = ApiSettings.from_command_line()
    configure_logging("api", settings.log_level, settings.log_format)
    configure_tracing("api")
    if fault := exposure_fault(settings.host, auth=settings.auth, insecure=settings.insecure):
        sys.exit(printable.lines(f"api: {fault}"))
    if fault := page_fault(ui=settings.ui):
        sys.exit(printable.lines(f"api: {fault}"))
    if fault := settings.llm_fault():
        sys.exit(printable.lines(f"api: {fault}"))
    if fault := certificates_fault():
        sys.exit(printable.lines(f"api: {fault}"))
    settings.check_redis()
    try:
        app = create_app(settings, page_built=gc.freeze)
    except StoreRefused as error:
        settings.refuse("artifacts", str(error))
    except PresetError as error:
        sys.exit(printable.lines(f"api: {error}"))
    # Objects made by imports are excluded from garbage collection: a full collection of them takes
    # a tenth of a second, during which no request is answered.
    gc.freeze()
    allow_files(settings.connections)
    # Open event streams would keep a server alive for as long as their jobs run.
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.port,
        http=BoundedHead,
        h11_max_incomplete_event_size=MAX_HEAD,
        log_config=None,
        access_log=False,
        # ``Proxied`` does this, and also sets the host.
        proxy_headers=False,
        limit_concurrency=settings.connections,
        timeout_keep_alive=settings.keep_alive,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
