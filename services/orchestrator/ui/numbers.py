"""Reads lists of numbers as people write them."""

from __future__ import annotations

_MOST = 64


class NotNumbers(ValueError):
    """The message says how to write the numbers; ``field`` is the field with the fault."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


def seeds(text: str, field: str) -> list[int]:
    """Reads seeds: ``0-3, 9`` is 0, 1, 2, 3, 9."""
    found: list[int] = []
    for part in _parts(text):
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise NotNumbers(field, "write seeds like 0-7 or 1, 5, 9")
        begin, end = int(first), int(last or first)
        if end - begin >= _MOST:
            raise NotNumbers(field, f"write at most {_MOST} seeds")
        found += range(begin, end + 1)
    if not found:
        raise NotNumbers(field, "is empty; write seeds like 0-7 or 1, 5, 9")
    return found


def floats(text: str, field: str) -> list[float]:
    """Reads numbers like ``0, 0.5, 1``."""
    try:
        found = [float(part) for part in _parts(text)]
    except ValueError:
        raise NotNumbers(field, "write numbers like 0, 0.5, 1") from None
    if not found:
        raise NotNumbers(field, "is empty; write numbers like 0, 0.5, 1")
    return found


def _parts(text: str) -> list[str]:
    return (text or "").replace(",", " ").split()
