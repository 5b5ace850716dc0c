"""Logging, the same in every process, on standard error: time, level, service, message, and which
job and request it is about. For people, or as JSON for programs."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Literal

from dualprocess import printable
from services.common import tracing, trail

LogFormat = Literal["text", "json"]


def configure_logging(service: str, level: str, log_format: LogFormat = "text") -> None:
    """Sends every log record of this process to standard error: one line for each, or one object
    of JSON per line."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json(service) if log_format == "json" else _Printable(service))
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)


def as_json(service: str, level: str, message: str, **more: str) -> str:
    """One line of a log for programs. It is ASCII: nothing in it is obeyed by a terminal."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    record = {"time": now, "level": level.lower(), "service": service, "message": message, **more}
    return json.dumps(record).replace("\x7f", "\\u007f")


class _Printable(logging.Formatter):
    """Texts of others can't begin a new line, or contain anything that a terminal obeys."""

    def __init__(self, service: str) -> None:
        super().__init__(f"%(asctime)s %(levelname)-7s {service} %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        message = printable.line(record.message)
        about = trail.current().named().items()
        # Most sentences about a job name it.
        told = " ".join(f"{name}={value}" for name, value in about if value not in message)
        record.message = f"{message} [{told}]" if told else message
        return super().formatMessage(record)

    def format(self, record: logging.LogRecord) -> str:
        return printable.lines(super().format(record))


class _Json(logging.Formatter):
    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        more = {"logger": record.name, **trail.current().named()}
        if trace := tracing.trace_id():
            more["trace"] = trace
        if record.exc_info:
            more["exception"] = self.formatException(record.exc_info)
        return as_json(self._service, record.levelname, record.getMessage(), **more)
