"""Job ids: 26 characters that sort by creation, as ULIDs do (48 bits of time, 80 of chance)."""

from __future__ import annotations

import secrets
import time

#: Digits and lower-case letters that nobody mistakes for one another.
ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def new_job_id() -> str:
    number = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    return "".join(ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))
