"""Calls of a VLM that may be several processes behind one target.

gRPC finds out who is healthy. It can't say who has least to do, keeps to the addresses that it
found first, and may choose whoever just failed: that is done here.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self, TypeVar

import grpc

from dualprocess.v1 import vlm_pb2, vlm_pb2_grpc
from services.common.blame import failed_device
from services.common.channels import AWAY, open_channel
from services.common.credentials import Credentials
from services.common.errors import VlmLate, VlmsFailed
from services.common.resolve import addresses, named
from services.common.vlm_metrics import vlm_call, vlm_retried

log = logging.getLogger(__name__)

AnswerT = TypeVar("AnswerT")
#: What is asked of a replica, with the time it may take.
Call = Callable[["vlm_pb2_grpc.VlmAsyncStub"], Awaitable[AnswerT]]

#: One that is late so often in a row is no more in time for the next call.
MOST_LATE = 3
#: Pauses between tries while the VLM is away; the last one repeats.
RETRY_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0)

#: How old the list of addresses may be: one that is new is found within it.
_RESOLVE_SECONDS = 5.0
#: Of a look at all replicas: for the first answer, for the others, and for those that could have
#: less to do than nothing.
_FIRST_SECONDS, _OTHERS_SECONDS, _IDLE_SECONDS = 5.0, 0.25, 0.02
#: Whoever failed is asked last for so long.
_AVOID_SECONDS = 30.0
#: Between two calls of the one replica that there is, when it failed the first.
_AGAIN_SECONDS = 0.5


@dataclass(eq=False)
class _Replica:
    address: str
    channel: grpc.aio.Channel
    stub: vlm_pb2_grpc.VlmAsyncStub
    failed_at: float = -_AVOID_SECONDS

    @property
    def failed_lately(self) -> bool:
        return time.monotonic() - self.failed_at < _AVOID_SECONDS


@dataclass(frozen=True)
class Told:
    """Who hears of what is in the way: ``away`` at each try while nobody answers, ``failed`` when
    a replica failed a call and another one, or it once more, is asked."""

    away: Callable[[str], Awaitable[None]]
    failed: Callable[[str], Awaitable[None]]


class Replicas:
    """An asynchronous context. ``preset`` is the VLM's, ``name`` is for people."""

    def __init__(self, target: str, credentials: Credentials, *, preset: str) -> None:
        self.name = f"{preset} at {target}"
        self._target = target
        self._credentials = credentials
        self._preset = preset
        self._replicas: dict[str, _Replica] = {}
        self._resolved_at = -_RESOLVE_SECONDS

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._close(list(self._replicas.values()))

    async def answers(self, seconds: float) -> bool:
        """Whether any replica answers within so long."""
        loads = await self._loads(await self._known(), seconds, seconds)
        return bool(loads)

    async def ask(self, method: str, call: Call[AnswerT], told: Told) -> AnswerT:
        """What the call of ``method`` gives, of whoever has least to do. Whoever is away or late is
        left for another one, or waited for.

        A call that failed with ``INTERNAL`` is made once more, by another replica. Raises
        ``VlmsFailed`` when that failed, too, ``VlmLate``, and ``grpc.aio.AioRpcError`` for what a
        replica refuses.
        """
        failures: dict[_Replica, str] = {}
        late = 0
        for tries in itertools.count():
            replica, why = await self._chosen(failures)
            if tries:
                vlm_retried(self._preset)
            if replica is not None:
                try:
                    with vlm_call(self._preset, method):
                        return await call(replica.stub)
                except grpc.aio.AioRpcError as error:
                    replica.failed_at = time.monotonic()
                    code, why = error.code(), error.details() or error.code().name
                    if code is grpc.StatusCode.INTERNAL:
                        await self._fail(failures, replica, error, told)
                        continue
                    if code not in AWAY:
                        raise
                late = late + 1 if code is grpc.StatusCode.DEADLINE_EXCEEDED else 0
                if late == MOST_LATE:
                    raise VlmLate(
                        f"the VLM {self.name} gave no answer in time, {late} times in a row"
                    )
                if tries + 1 < len(self._replicas):
                    continue
            await told.away(f"the VLM {self.name} is away: {why}")
            await asyncio.sleep(RETRY_SECONDS[min(tries, len(RETRY_SECONDS) - 1)])
        raise AssertionError

    async def _fail(
        self,
        failures: dict[_Replica, str],
        replica: _Replica,
        error: grpc.aio.AioRpcError,
        told: Told,
    ) -> None:
        """Raises ``VlmsFailed`` for the second failure."""
        device = failed_device(error, replica.address)
        sentence = f"{error.details() or 'INTERNAL'} (on the device {device})"
        if failures:
            first = next(iter(failures.values()))
            raise VlmsFailed(f"the VLM {self.name} failed the same call twice: {first}; {sentence}")
        failures[replica] = sentence
        log.warning("the VLM %s failed a call: %s", self.name, sentence)
        await told.failed(
            f"The VLM {self.name} failed a call, and another replica was asked: {sentence}"
        )
        if len(self._replicas) == 1:
            await asyncio.sleep(_AGAIN_SECONDS)

    async def _chosen(self, failures: Mapping[_Replica, str]) -> tuple[_Replica | None, str]:
        """Who is asked next; or why nobody can be."""
        known = await self._known()
        if len(known) == 1:
            return known[0], ""
        able = [one for one in known if one not in failures]
        loads = await self._loads(able, _FIRST_SECONDS, _OTHERS_SECONDS)
        if not loads:
            longest = max((one.failed_at for one in failures), default=time.monotonic())
            if time.monotonic() - longest > _AVOID_SECONDS:
                return next(iter(failures)), ""
            return None, f"none of its {len(able)} replicas answers"
        # Among equals by chance: others choose at the same time.
        return min(loads, key=lambda one: (one.failed_lately, loads[one], random.random())), ""

    async def _loads(
        self, replicas: Sequence[_Replica], first: float, others: float
    ) -> dict[_Replica, int]:
        """How much each has to do, of those that answer soon."""
        asked = {asyncio.ensure_future(_load(one)): one for one in replicas}
        pending, loads = set(asked), dict[_Replica, int]()
        seconds = first
        try:
            while pending:
                done, pending = await asyncio.wait(
                    pending, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
                )
                for one in done:
                    if (load := one.result()) is not None:
                        loads[asked[one]] = load
                if loads:
                    seconds = others if min(loads.values()) else min(others, _IDLE_SECONDS)
                if not done:
                    break
            for one in pending:
                asked[one].failed_at = time.monotonic()
            return loads
        finally:
            for one in pending:
                one.cancel()

    async def _known(self) -> list[_Replica]:
        if time.monotonic() - self._resolved_at > _RESOLVE_SECONDS:
            found = await addresses(self._target)
            self._resolved_at = time.monotonic()
            gone = [self._replicas.pop(old) for old in self._replicas.keys() - set(found)]
            for new in (one for one in found if one not in self._replicas):
                self._replicas[new] = self._opened(new)
            await self._close(gone)
        return list(self._replicas.values())

    def _opened(self, address: str) -> _Replica:
        name = named(self._target) if address != self._target else None
        channel = open_channel(address, self._credentials, peer=name[0] if name else None)
        return _Replica(address, channel, vlm_pb2_grpc.VlmStub(channel))

    async def _close(self, replicas: Sequence[_Replica]) -> None:
        for one in replicas:
            await one.channel.close()


async def _load(replica: _Replica) -> int | None:
    """``None`` for one that is away."""
    request = vlm_pb2.VlmDescribeRequest()
    try:
        return (await replica.stub.Describe(request, timeout=_FIRST_SECONDS)).calls
    except grpc.aio.AioRpcError as error:
        return None if error.code() in AWAY else 0
