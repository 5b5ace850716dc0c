"""Who sends wrong API keys has to wait before the next one is looked at."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

#: Addresses that are remembered; the one whose last wrong key is longest ago is forgotten first.
_ADDRESSES = 10_000


@dataclass(frozen=True)
class Counted:
    """``waits``: seconds that the address still has to wait; 0: this one was looked at, and
    ``unseen`` before it were not."""

    waits: float
    unseen: int


@dataclass
class _Record:
    wrong: int = 0
    #: Until when the address has to wait.
    until: float = 0.0
    #: Wrong keys that came meanwhile.
    unseen: int = 0


class WrongKeys:
    """The wrong keys of each address, in the memory of this process.

    An address has ``free`` of them. From then on each makes it wait: a second, then twice as long
    each time, ``seconds`` at most. Those that come while it waits don't count. After ``seconds``
    without a wait and a wrong key it begins anew.

    A right key never has to wait: whoever shares an address with a guesser still gets in. So each
    guess costs Redis one read, as a right key does, and never a write. Guessing leads nowhere: a
    key has 260 random bits. What waiting saves is the log, and the time of who runs a loop with an
    old key.
    """

    def __init__(
        self, free: int, seconds: float, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._free = free
        self._seconds = seconds
        self._clock = clock
        self._records: OrderedDict[str, _Record] = OrderedDict()

    def __len__(self) -> int:
        """Addresses that are remembered."""
        return len(self._records)

    def count(self, address: str) -> Counted:
        """Takes note of a wrong key."""
        now = self._clock()
        record = self._records.pop(address, None)
        if record is None or now > record.until + self._seconds:
            record = _Record(until=now)
        self._records[address] = record
        if len(self._records) > _ADDRESSES:
            self._records.popitem(last=False)
        if now < record.until:
            record.unseen += 1
            return Counted(waits=record.until - now, unseen=0)
        record.wrong += 1
        over = record.wrong - self._free
        pause = 0.0 if over < 0 else min(2.0 ** min(over, 60), self._seconds)
        record.until = now + pause
        unseen, record.unseen = record.unseen, 0
        return Counted(waits=0.0, unseen=unseen)
