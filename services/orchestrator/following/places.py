"""How many may listen at once: to one process, and of them with one key."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator


class NoPlace(Exception):
    """Whoever asks has to wait until somebody stops listening."""

    def __init__(self, limit: int, *, of_key: bool) -> None:
        super().__init__(f"all {limit} places are taken")
        self.limit = limit
        #: Whether it is the key's own limit, and not everybody's.
        self.of_key = of_key


class Places:
    def __init__(self, *, total: int, per_key: int) -> None:
        self._total = total
        self._per_key = per_key
        self._taken = 0
        self._taken_with: Counter[str] = Counter()

    def take(self, key: str | None) -> contextlib.AbstractContextManager[None]:
        """A place, for the holder of a key, or for anyone while none is asked for: enter it, and
        leave it to give it back. Raises ``NoPlace`` at once where none is free."""
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
