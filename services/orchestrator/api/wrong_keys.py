"""Makes an address that sends wrong API keys wait before its next one is checked."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

#: The most addresses that are remembered. The one with the oldest wrong key is forgotten first.
_ADDRESSES = 10_000


@dataclass(frozen=True)
class Counted:
    """``waits``: seconds that the address still has to wait; 0 if this key was checked. Then
    ``unseen`` is how many keys before it were not."""

    waits: float
    unseen: int


@dataclass
class _Record:
    wrong: int = 0
    #: Until when the address has to wait.
    until: float = 0.0
    #: Wrong keys that came while it had to wait.
    unseen: int = 0


class WrongKeys:
    """Counts the wrong keys of each address, in the memory of this process.

    An address may send ``free`` wrong keys. Each further one makes it wait: one second, then twice
    as long each time, at most ``seconds``. Keys that come during a wait are not counted. After
    ``seconds`` without a wait and without a wrong key, the count begins anew.

    A right key never has to wait, so others at the same address still get in. Each wrong key costs
    Redis one read, as a right key does, and never a write. Nobody can guess a key, since it has 260
    random bits. The waits only keep the log short, and slow down programs with an old key.
    """

    def __init__(
        self, free: int, seconds: float, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._free = free
        self._seconds = seconds
        self._clock = clock
        self._records: OrderedDict[str, _Record] = OrderedDict()

    def __len__(self) -> int:
        """How many addresses are remembered."""
        return len(self._records)

    def count(self, address: str) -> Counted:
        """Counts a wrong key, and says how long the address has to wait."""
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
