"""Logging, the same in every process: time, level, service, message, on standard error."""

from __future__ import annotations

import logging
import sys

from dualprocess import printable


def configure_logging(service: str, level: str) -> None:
    """Sends every log record of this process to standard error, one line for each."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Printable(f"%(asctime)s %(levelname)-7s {service} %(name)s: %(message)s"))
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)


class _Printable(logging.Formatter):
    """Texts of others can't begin a new line, or contain anything that a terminal obeys."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        record.message = printable.line(record.message)
        return super().formatMessage(record)

    def format(self, record: logging.LogRecord) -> str:
        return printable.lines(super().format(record))
