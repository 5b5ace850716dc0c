"""``python -m tests.cluster``: the service over hosts with addresses of their own, while links are
cut and healed, hosts are lost for good, and new ones join.

It ends with status 1 when a job was lost, finished twice or came to other bytes than an undisturbed
one, or when a listener missed an event or heard one twice.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from services.orchestrator.store.redis import connect
from tests.chaos import jobs, report
from tests.chaos.replicas import Replicas, replicas
from tests.chaos.verdict import Verdict, judge
from tests.cluster import events
from tests.cluster.network import Network, enter, impossible
from tests.cluster.site import Site

_REDIS_RETRIES = 60
#: As long as things happen there are jobs for them to happen to.
_SECONDS, _BRIEF_SECONDS = 70.0, 30.0


def main(arguments: Sequence[str]) -> None:
    options = _options(arguments)
    # gRPC only asks after the children's health here; its fork handlers have nothing to guard.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    if not options.inside:
        if fault := impossible():
            sys.exit(f"cluster: {fault}")
        enter("tests.cluster", arguments)
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        verdict = asyncio.run(_run(options, (options.data or Path(folder)).resolve()))
    verdict.seconds = time.monotonic() - begin
    console = Console()
    console.print(report.promises(verdict, "hosts that come and go"))
    for sentence in verdict.broken:
        console.print(sentence, markup=False, highlight=False, soft_wrap=True)
    sys.exit(1 if verdict.broken else 0)


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=30)
    parser.add_argument("--minutes", type=float, default=15.0, help="at most so long")
    parser.add_argument("--data", type=Path, help="keep Redis's files and logs there")
    parser.add_argument("--brief", action="store_true", help="fewer links are cut")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


async def _run(options: argparse.Namespace, folder: Path) -> Verdict:
    network = Network()
    site = Site(network, folder)
    try:
        async with asyncio.timeout(60 * options.minutes):
            await site.start()
            first, *_ = await asyncio.gather(
                site.start_api(events.API), site.start_vlm("vlm1"), site.start_vlm("vlm2")
            )
            await asyncio.gather(
                *(site.start_generator(f"generator{number}", first) for number in (1, 2))
            )
            return await _judged(options, site, first)
    finally:
        await site.stop()


async def _judged(options: argparse.Namespace, site: Site, url: str) -> Verdict:
    redis = connect(site.redis_url, retries=_REDIS_RETRIES)
    try:
        async with replicas([url]) as api:
            submitted, references = await _disturbed(options, site, api)
            return await judge(options.jobs, submitted, references, api, redis)
    finally:
        await redis.aclose()


async def _disturbed(
    options: argparse.Namespace, site: Site, api: Replicas
) -> tuple[list[jobs.Submitted], dict[str, jobs.Outcome]]:
    """Returns when all has happened and all jobs have ended."""
    wanted = jobs.specs(options.jobs, different=2 if options.brief else 6)
    print("the hosts are ready; each job undisturbed first", flush=True)
    references = await jobs.references(api, wanted)
    print("and now while hosts come and go", flush=True)
    submitted: list[jobs.Submitted] = []
    gap = (_BRIEF_SECONDS if options.brief else _SECONDS) / options.jobs
    async with asyncio.TaskGroup() as group:
        group.create_task(jobs.submit_all(api, wanted, submitted, gap=gap))
        happened = await group.create_task(events.happen(site, brief=options.brief))
    print(f"{happened} things happened", flush=True)
    return submitted, references


if __name__ == "__main__":
    main(sys.argv[1:])
