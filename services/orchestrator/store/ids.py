"""Job ids: 26 characters that sort by creation, as ULIDs do (48 bits of time, 79 of chance)."""

from __future__ import annotations

import secrets
import time

#: Digits and lower-case letters that nobody mistakes for one another.
ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def new_job_id() -> str:
    return new_job_ids(1)[0]


def new_job_ids(count: int) -> list[str]:
    """Ids that sort as they are listed: all of one moment, counted up from one chance number."""
    # 79 bits of chance leave room to count.
    first = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(79)
    return [_written(first + index) for index in range(count)]


def _written(number: int) -> str:
    return "".join(ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))
