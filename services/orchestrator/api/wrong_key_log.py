"""Logs wrong API keys: the sender and the route, never the key."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

#: The most lines in a minute, so that nobody can fill a disk with them.
_LINES = 30
_MINUTE = 60.0


class WrongKeyLog:
    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since = clock()
        self._lines = 0
        self._left_out = 0

    def write(self, fault: str, address: str, route: str, *, unseen: int) -> None:
        """Logs one wrong key, unless there were many just now. A later line counts those left out.

        ``unseen`` is how many keys the address sent before, while it had to wait.
        """
        now = self._clock()
        if now - self._since >= _MINUTE:
            self._since, self._lines = now, 0
        if self._lines == _LINES:
            self._left_out += 1 + unseen
            return
        self._lines += 1
        more = f"; {unseen} more came while it had to wait" if unseen else ""
        if self._left_out:
            more += f"; {self._left_out} others, of any address, have no line"
            self._left_out = 0
        log.warning("an API key that %s came from %s, for %s%s", fault, address, route, more)
