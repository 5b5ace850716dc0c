"""Calls that wait for the device at the same time, computed together if they are alike."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from services.common.device import DeviceThread
from services.common.device_errors import is_out_of_memory

CallT = TypeVar("CallT")
ResultT = TypeVar("ResultT")


@dataclass(eq=False)
class _Waiting(Generic[CallT, ResultT]):
    """``result`` is set, and read, on the device's thread."""

    call: CallT
    kind: Hashable
    size: int
    alone: bool = False
    result: ResultT | None = None


class Together(Generic[CallT, ResultT]):
    """``compute`` turns calls of one kind into their results, on the device's thread.

    A call whose turn comes takes those of its kind along that wait behind it; no call waits for
    others to come. If calls fail together, each is computed alone in its own turn, so that one
    fails no other. Unless it is ``on``, every call is computed alone: a result's last bits depend
    on its company.
    """

    def __init__(
        self,
        device: DeviceThread,
        compute: Callable[[Sequence[CallT]], Sequence[ResultT]],
        *,
        on: bool,
    ) -> None:
        self._on = on
        self._device = device
        self._compute = compute
        self._waiting: list[_Waiting[CallT, ResultT]] = []
        #: What was too large for the device's memory, halved.
        self._largest: int | None = None

    async def run(self, call: CallT, kind: Hashable, size: int, largest: int) -> ResultT:
        """The result of ``call``. Sizes of calls that go together add up to ``largest`` at most.
        Raises what ``DeviceThread.run`` does."""
        one: _Waiting[CallT, ResultT] = _Waiting(call, kind, size)
        self._waiting.append(one)
        try:
            return await self._device.run(self._turn, one, largest)
        finally:
            self._waiting.remove(one)

    def _turn(self, one: _Waiting[CallT, ResultT], largest: int) -> ResultT:
        if one.result is not None:
            return one.result
        company = self._company(one, largest)
        if len(company) > 1 and self._succeed(company):
            assert one.result is not None
            return one.result
        (result,) = self._compute([one.call])
        return result

    def _company(
        self, one: _Waiting[CallT, ResultT], largest: int
    ) -> list[_Waiting[CallT, ResultT]]:
        company, size = [one], one.size
        if not self._on:
            return company
        largest = min(largest, self._largest or largest)
        # A copy: the event loop goes on adding and removing.
        for other in tuple(self._waiting):
            is_free = other is not one and other.result is None
            is_alike = other.kind == one.kind and not (one.alone or other.alone)
            if is_free and is_alike and size + other.size <= largest:
                company.append(other)
                size += other.size
        return company

    def _succeed(self, company: Sequence[_Waiting[CallT, ResultT]]) -> bool:
        try:
            results = self._compute([other.call for other in company])
        # Whatever it is, the one that it belongs to meets it again in its own turn.
        except Exception as error:
            if is_out_of_memory(error):
                self._largest = max(1, sum(other.size for other in company) // 2)
            for other in company:
                other.alone = True
            return False
        for other, result in zip(company, results, strict=True):
            other.result = result
        return True
