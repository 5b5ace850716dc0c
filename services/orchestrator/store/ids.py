"""Job ids: 26 characters that sort by creation, as ULIDs do (48 bits of time, 79 of chance)."""

from __future__ import annotations

import secrets
import time

#: Digits and lower-case letters that are not easily confused.
ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def new_job_id() -> str:
    return new_job_ids(1)[0]


def new_job_ids(count: int) -> list[str]:
    """Ids in their sorting order: all of the same moment, counted up from one random number."""
    # 79 random bits leave room to count up.
    first = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(79)
    return [_written(first + index) for index in range(count)]


def _written(number: int) -> str:
    return "".join(ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))
