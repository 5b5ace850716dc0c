"""Calls of a VLM that may be several processes behind one target.

gRPC itself finds out which replicas are healthy. But it does not know which has least to do, keeps
the addresses that it found first, and may choose one that just failed. This module does these
three.
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

log = logging.getLogger(__name__)

AnswerT = TypeVar("AnswerT")
#: A call to a replica, with its time limit.
Call = Callable[["vlm_pb2_grpc.VlmAsyncStub"], Awaitable[AnswerT]]

#: After this many late answers in a row the call is given up.
MOST_LATE = 3
#: Pauses between tries while the VLM is away; the last one repeats.
RETRY_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0)

#: How old the list of addresses may be. A new address is found within this time.
_RESOLVE_SECONDS = 5.0
#: Time limits when all replicas are asked how much they have to do: for the first answer, for the
#: others, and for the others if one has nothing to do.
_FIRST_SECONDS, _OTHERS_SECONDS, _IDLE_SECONDS = 5.0, 0.25, 0.02
#: For this long a replica that failed is tried last.
_AVOID_SECONDS = 30.0
#: The pause before the only replica gets a call again that it failed.
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
    """Callbacks: ``away`` is called for each try that no replica answers, ``failed`` when a replica
    failed a call and the call is tried again."""

    away: Callable[[str], Awaitable[None]]
    failed: Callable[[str], Awaitable[None]]


class Replicas:
    """Use it as an asynchronous context. ``name`` is how messages call the VLM."""

    def __init__(self, target: str, credentials: Credentials, *, name: str) -> None:
        self._target = target
        self._credentials = credentials
        self._name = name
        self._replicas: dict[str, _Replica] = {}
        self._resolved_at = -_RESOLVE_SECONDS

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._close(list(self._replicas.values()))

    async def answers(self, seconds: float) -> bool:
        """Whether any replica answers within ``seconds``."""
        loads = await self._loads(await self._known(), seconds, seconds)
        return bool(loads)

    async def ask(self, call: Call[AnswerT], told: Told) -> AnswerT:
        """The result of the call, from the replica that has least to do. If that one is away or
        late, another one is called; if none answers, the call waits.

        A call that failed with ``INTERNAL`` is made once more, by another replica. Raises
        ``VlmsFailed`` if that fails, too, ``VlmLate``, and ``grpc.aio.AioRpcError`` if a replica
        refuses the call.
        """
        failures: dict[_Replica, str] = {}
        late = 0
        for tries in itertools.count():
            replica, why = await self._chosen(failures)
            if replica is not None:
                try:
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
                        f"the VLM {self._name} gave no answer in time, {late} times in a row"
                    )
                if tries + 1 < len(self._replicas):
                    continue
            await told.away(f"the VLM {self._name} is away: {why}")
            await asyncio.sleep(RETRY_SECONDS[min(tries, len(RETRY_SECONDS) - 1)])
        raise AssertionError

    async def _fail(
        self,
        failures: dict[_Replica, str],
        replica: _Replica,
        error: grpc.aio.AioRpcError,
        told: Told,
    ) -> None:
        """Notes a failure. Raises ``VlmsFailed`` for the second one."""
        device = failed_device(error, replica.address)
        sentence = f"{error.details() or 'INTERNAL'} (on the device {device})"
        if failures:
            first = next(iter(failures.values()))
            raise VlmsFailed(
                f"the VLM {self._name} failed the same call twice: {first}; {sentence}"
            )
        failures[replica] = sentence
        log.warning("the VLM %s failed a call: %s", self._name, sentence)
        await told.failed(
            f"The VLM {self._name} failed a call, and another replica was asked: {sentence}"
        )
        if len(self._replicas) == 1:
            await asyncio.sleep(_AGAIN_SECONDS)

    async def _chosen(self, failures: Mapping[_Replica, str]) -> tuple[_Replica | None, str]:
        """The replica to call next; or why there is none."""
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
        # Equal ones are chosen at random, since others choose at the same time.
        return min(loads, key=lambda one: (one.failed_lately, loads[one], random.random())), ""

    async def _loads(
        self, replicas: Sequence[_Replica], first: float, others: float
    ) -> dict[_Replica, int]:
        """How much each replica has to do, for those that answer soon."""
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
    """How much one replica has to do; ``None`` if it is away."""
    request = vlm_pb2.VlmDescribeRequest()
    try:
        return (await replica.stub.Describe(request, timeout=_FIRST_SECONDS)).calls
    except grpc.aio.AioRpcError as error:
        return None if error.code() in AWAY else 0
