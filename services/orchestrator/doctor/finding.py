"""One result of a check."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    #: Nothing is wrong.
    FINE = "ok"
    #: The service runs, but this will do harm one day.
    WARNING = "warning"
    #: The service does not run, or not for long.
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """``remedy`` is what to do; empty if there is nothing to do."""

    what: str
    level: Level
    said: str
    remedy: str = ""


def fine(what: str, said: str) -> Finding:
    return Finding(what, Level.FINE, said)


def warning(what: str, said: str, remedy: str) -> Finding:
    return Finding(what, Level.WARNING, said, remedy)


def problem(what: str, said: str, remedy: str) -> Finding:
    return Finding(what, Level.PROBLEM, said, remedy)
