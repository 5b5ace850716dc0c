"""Limits how many listen at once, in all and with one key."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator


class NoPlace(Exception):
    """No place is free until somebody stops listening."""

    def __init__(self, limit: int, *, of_key: bool) -> None:
        super().__init__(f"all {limit} places are taken")
        self.limit = limit
        #: Whether it is the limit of the key, and not the one of all together.
        self.of_key = of_key


class Places:
    def __init__(self, *, total: int, per_key: int) -> None:
        self._total = total
        self._per_key = per_key
        self._taken = 0
        self._taken_with: Counter[str] = Counter()

    def take(self, key: str | None) -> contextlib.AbstractContextManager[None]:
        """A place, as a context manager that gives it back. ``key`` is the id of the caller's key,
        if there is one. Raises ``NoPlace`` at once if none is free."""
        if key is not None and self._taken_with[key] >= self._per_key:
            raise NoPlace(self._per_key, of_key=True)
        if self._taken >= self._total:
            raise NoPlace(self._total, of_key=False)
        self._count(key, 1)
        return self._held(key)

    @contextlib.contextmanager
    def _held(self, key: str | None) -> Iterator[None]:
        try:
            yield
        finally:
            self._count(key, -1)

    def _count(self, key: str | None, count: int) -> None:
        self._taken += count
        if key is not None:
            self._taken_with[key] += count
            if not self._taken_with[key]:
                del self._taken_with[key]
