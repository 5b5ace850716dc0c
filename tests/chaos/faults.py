"""Faults in the stack: kills, restarts, stops, sick devices, in an order that a seed decides."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from random import Random

import psutil

from tests.chaos.stack import LEASE_SECONDS, Kind, Part, Stack
from tests.sick_service import CUDA, ODD, fall_sick, get_well, was_met


class Action(StrEnum):
    KILL = "kill -9"
    RESTART = "SIGTERM"
    STOP = "SIGSTOP, SIGCONT"
    #: Each call of the device fails, while its process lives.
    BREAK = "CUDA errors"
    SICKEN = "odd errors"


#: Faults of whole processes; and of devices, for processes that have one.
_TO_PROCESSES = (Action.KILL, Action.RESTART, Action.STOP)
_TO_DEVICES = {Action.BREAK: CUDA, Action.SICKEN: ODD}
_DEVICES = (Kind.GENERATOR, Kind.VLM)


@dataclass(frozen=True)
class Fault:
    action: Action
    kind: Kind


@dataclass(frozen=True)
class Plan:
    """All ``faults`` in random order, with ``gap`` seconds between two on average; then again,
    ``rounds`` times, or as long as jobs run. Redis is stopped for one of ``cuts`` seconds."""

    faults: Sequence[Fault]
    gap: float
    cuts: Sequence[float]
    rounds: int | None = None


#: Each fault for each kind. A stopped Redis is cut off: for less than a lease, for more, and for
#: longer than its clients wait for an answer (20 s).
FULL = Plan(
    [Fault(action, kind) for action in _TO_PROCESSES for kind in Kind]
    + [Fault(action, kind) for action in _TO_DEVICES for kind in _DEVICES],
    1.5,
    (2.0, 7.0, 24.0),
)
#: One of each main kind, for a run that has no time for all.
BRIEF = Plan(
    [
        Fault(Action.KILL, Kind.GENERATOR),
        Fault(Action.KILL, Kind.WORKER),
        Fault(Action.STOP, Kind.WORKER),
        Fault(Action.KILL, Kind.VLM),
        Fault(Action.KILL, Kind.API),
        Fault(Action.KILL, Kind.REDIS),
        Fault(Action.STOP, Kind.REDIS),
        Fault(Action.RESTART, Kind.WORKER),
        Fault(Action.BREAK, Kind.VLM),
        Fault(Action.SICKEN, Kind.GENERATOR),
    ],
    gap=1.0,
    cuts=(3.0,),
    rounds=1,
)

_LOOK_SECONDS = 0.2
#: A process is stopped for longer than its lease, or than its callers wait.
_STOP_SECONDS = (1.3 * LEASE_SECONDS, 2.5 * LEASE_SECONDS)


class Chaos:
    """Does to ``stack`` what ``plan`` says."""

    def __init__(self, stack: Stack, plan: Plan, rng: Random) -> None:
        #: The faults so far.
        self.injected: Counter[Fault] = Counter()
        #: Set when each fault has happened, or when no more will.
        self.one_round = asyncio.Event()
        self._stack = stack
        self._plan = plan
        self._rng = rng

    async def run(self, done: asyncio.Event) -> None:
        """Makes faults until ``done`` is set. Returns when no process is stopped any more."""
        async with asyncio.TaskGroup() as stops:
            for number in itertools.count(1):
                await self._round(stops, done)
                self.one_round.set()
                if done.is_set() or number == self._plan.rounds:
                    return

    async def _round(self, stops: asyncio.TaskGroup, done: asyncio.Event) -> None:
        for fault in self._rng.sample(self._plan.faults, len(self._plan.faults)):
            await _pause(self._plan.gap * self._rng.uniform(0.4, 1.6), done)
            if done.is_set():
                return
            self._inject(fault, stops, done)

    def _inject(self, fault: Fault, stops: asyncio.TaskGroup, done: asyncio.Event) -> None:
        parts = self._stack.of(fault.kind)
        seconds = self._rng.choice(self._plan.cuts)
        if fault.kind != Kind.REDIS:
            seconds = self._rng.uniform(*_STOP_SECONDS)
        if fault.action in _TO_DEVICES:
            # Always the same one, since a job that failed on two devices may not survive.
            part = parts[0]
            assert part.sick is not None
            fall_sick(part.sick, _TO_DEVICES[fault.action])
            _tell(part, f"{fault.action} for {seconds:.1f} s")
            stops.create_task(self._sicken(fault, part.sick, seconds, done))
            return
        for part in self._rng.sample(parts, len(parts)):
            process = part.process()
            if process is not None and _send(process, fault.action):
                self.injected[fault] += 1
                if fault.action == Action.STOP:
                    _tell(part, f"SIGSTOP, and SIGCONT after {seconds:.1f} s")
                    stops.create_task(_continue(process, seconds, done))
                else:
                    _tell(part, fault.action)
                return

    async def _sicken(self, fault: Fault, sick: Path, seconds: float, done: asyncio.Event) -> None:
        self.injected[fault] += await _well_after(sick, seconds, done)


def _send(process: psutil.Process, action: Action) -> bool:
    number = {
        Action.KILL: signal.SIGKILL,
        Action.RESTART: signal.SIGTERM,
        Action.STOP: signal.SIGSTOP,
    }[action]
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return False
    return True


async def _continue(process: psutil.Process, seconds: float, done: asyncio.Event) -> None:
    try:
        await _pause(seconds, done)
    finally:
        # It may have been killed meanwhile.
        with contextlib.suppress(psutil.NoSuchProcess):
            process.resume()


async def _well_after(sick: Path, seconds: float, done: asyncio.Event) -> bool:
    """Waits until the device has failed a call. Returns whether it did."""
    try:
        await _pause(seconds, done)
        while not was_met(sick) and not done.is_set():
            await _pause(_LOOK_SECONDS, done)
        return was_met(sick)
    finally:
        get_well(sick)


async def _pause(seconds: float, done: asyncio.Event) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await done.wait()


def _tell(part: Part, what: str) -> None:
    print(f"  {part.spec.name}: {what}", flush=True)
