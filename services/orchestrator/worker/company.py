"""Which jobs of one generator have run beside others."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class Company:
    def __init__(self) -> None:
        self._aboard: set[str] = set()
        self._had: set[str] = set()

    @contextlib.contextmanager
    def joined(self, job_id: str) -> Iterator[None]:
        """The job is on the generator meanwhile."""
        self._aboard.add(job_id)
        if len(self._aboard) > 1:
            self._had |= self._aboard
        try:
            yield
        finally:
            self._aboard.discard(job_id)
            self._had.discard(job_id)

    def had(self, job_id: str) -> bool:
        """Whether another job was there at any time since this one joined."""
        return job_id in self._had
