"""Measures how much load the REST API can take: ``python -m benchmarks.load``.

There is one API process and a real Redis. Simulated workers hold and renew leases and report steps,
other jobs wait in the queue, and event streams are open.

1. ``/healthz`` is asked at a constant rate.
2. Jobs are submitted and read, each at that rate, while ``/healthz`` is still asked.
3. As many events as a stream has in an hour go through the open streams.
4. A crowd opens streams of one job at once, more than the API allows; meanwhile ``/readyz`` is
   asked.

The time of a request counts from the moment when it was due. ``--save`` writes the result to
``benchmarks/results/``. The exit status is 1 if anything went wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.load import report
from benchmarks.load.run import Options, run


def main(arguments: Sequence[str] | None = None) -> None:
    options, save = _options(arguments)
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    with tempfile.TemporaryDirectory() as folder:
        result = asyncio.run(run(options, Path(folder)))
    report.show(result, options)
    if save:
        report.save(result, options)
    sys.exit(1 if result.errors else 0)


def _options(arguments: Sequence[str] | None) -> tuple[Options, bool]:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--rate", type=float, default=50.0, help="requests a second, of each kind")
    add("--seconds", type=float, default=30.0, help="of each part")
    add("--leases", type=int, default=1000, help="running jobs")
    add("--queued", type=int, default=1000, help="waiting jobs")
    add("--streams", type=int, default=200, help="open event streams")
    add("--crowd", type=int, default=1500, help="streams of one job, opened at once")
    add("--hour", type=int, default=720, help="events of a stream in an hour: one in 5 s")
    add("--settle", type=float, default=12.0, help="seconds before the first request")
    add("--save", action="store_true")
    chosen = vars(parser.parse_args(arguments))
    save = chosen.pop("save")
    return Options(**chosen), save


if __name__ == "__main__":
    main()
