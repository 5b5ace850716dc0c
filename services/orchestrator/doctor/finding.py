"""What a look came to."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    #: As it must be.
    FINE = "ok"
    #: It runs, and will do harm some day.
    WARNING = "warning"
    #: It does not run, or not for long.
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """``remedy`` is what to do; empty where nothing is."""

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
