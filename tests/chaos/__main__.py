"""``python -m tests.chaos``: kills, stops and restarts parts of a real stack while jobs run.

It ends with status 1 if a job was lost, finished twice or has other bytes than an undisturbed one,
or if a listener missed an event or heard one twice. ``--seed`` decides which faults happen to which
parts, and in which order.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random

from dualprocess import JobSpec
from services.orchestrator.store.redis import connect
from tests.chaos import faults, jobs, report
from tests.chaos.faults import Chaos
from tests.chaos.replicas import Replicas, replicas
from tests.chaos.stack import Stack, build, running
from tests.chaos.verdict import Verdict, judge

#: The share of the time with faults, at most. In the rest the jobs can end undisturbed.
_DISTURBED = 0.75
#: Time for the undisturbed jobs before, and for the verdict after.
_UNDISTURBED_SECONDS = 180
_REDIS_RETRIES = 60
#: Jobs come faster than they are done, so there is always something to interrupt.
_SUBMIT_GAP_SECONDS = 0.5
#: How many different jobs there are.
_SPECS, _BRIEF_SPECS = 6, 2


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    # gRPC is used only to check the children's health, so its fork handlers are not needed.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    begin = time.monotonic()
    with contextlib.ExitStack() as stack:
        folder = options.data or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        verdict = asyncio.run(_run(options, folder.resolve()))
    verdict.seconds = time.monotonic() - begin
    report.show(verdict, f"chaos, seed {options.seed}")
    sys.exit(1 if verdict.broken else 0)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=12.0, help="at most so long with chaos")
    parser.add_argument("--data", type=Path, help="keep Redis, files and logs there")
    parser.add_argument(
        "--brief", action="store_true", help="one fault of each main kind, close together"
    )
    return parser.parse_args(arguments)


async def _run(options: argparse.Namespace, folder: Path) -> Verdict:
    stack = build(folder)
    redis = connect(stack.redis_url, retries=_REDIS_RETRIES)
    async with (
        running(stack, folder / "logs"),
        replicas(stack.api_urls) as api,
        asyncio.timeout(60 * options.minutes + _UNDISTURBED_SECONDS),
    ):
        wanted = jobs.specs(options.jobs, different=_BRIEF_SPECS if options.brief else _SPECS)
        print("the stack is ready; each job undisturbed first", flush=True)
        references = await jobs.references(api, wanted)
        print("and now with chaos", flush=True)
        chaos, submitted = await _disturb(options, stack, api, wanted)
        verdict = await judge(options.jobs, submitted, references, api, redis)
    await redis.aclose()
    verdict.faults = chaos.injected
    return verdict


async def _disturb(
    options: argparse.Namespace, stack: Stack, api: Replicas, wanted: Sequence[JobSpec]
) -> tuple[Chaos, list[jobs.Submitted]]:
    """Returns when all jobs have ended and each fault has happened, or when the time is over."""
    plan = faults.BRIEF if options.brief else faults.FULL
    chaos = Chaos(stack, plan, Random(options.seed))
    submitted: list[jobs.Submitted] = []
    seconds, enough = options.minutes * 60, asyncio.Event()
    asyncio.get_running_loop().call_later(_DISTURBED * seconds, enough.set)
    disturbing = asyncio.create_task(chaos.run(enough))
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await jobs.submit_all(api, wanted, submitted, gap=_SUBMIT_GAP_SECONDS)
            await chaos.one_round.wait()
    enough.set()
    await disturbing
    return chaos, submitted


if __name__ == "__main__":
    main()
