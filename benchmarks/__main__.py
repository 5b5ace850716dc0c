"""Runs the benches that need no GPU: ``python -m benchmarks [NAME …]``, all of them by default.

Each prints a table; ``--save`` keeps its result as ``benchmarks/results/NAME.json``. All figures
are ratios or counts, with the times that they come from beside them: quote the ratios. README.md,
in this folder, says what each bench shows.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from rich.console import Console

from benchmarks.machine import provenance

#: Modules of this package, each with ``measure`` and ``tables``.
NAMES = ("footprint", "step", "wire", "overlap", "questions", "batching", "launches", "startup")
RESULTS = Path(__file__).parent / "results"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args(arguments)
    if strangers := [name for name in options.names if name not in NAMES]:
        parser.error(f"{strangers[0]} is unknown: choose from {', '.join(NAMES)}")
    for name in options.names or NAMES:
        run(name, save=options.save)


def run(name: str, *, save: bool) -> None:
    bench = import_module(f"benchmarks.{name}")
    begin = time.monotonic()
    result = bench.measure()
    for table in bench.tables(result):
        Console().print(table)
    print(f"{name}: {time.monotonic() - begin:.0f} s", file=sys.stderr)
    if save:
        path = RESULTS / f"{name}.json"
        path.write_text(json.dumps(provenance() | result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
