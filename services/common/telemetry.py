"""Logging, the same in every process: time, level, service, message, on standard error."""

from __future__ import annotations

import logging
import sys


def configure_logging(service: str, level: str) -> None:
    """Sends every log record of this process to standard error, one line for each."""
    logging.basicConfig(
        stream=sys.stderr,
        level=level.upper(),
        format=f"%(asctime)s %(levelname)-7s {service} %(name)s: %(message)s",
        force=True,
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
