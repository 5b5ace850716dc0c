"""Puts single mistakes into the code and checks whether the tests notice: ``make mutants``.

``targets`` says which files and which tests, ``mistakes`` has those made by hand, all of which are
tried, ``equivalent`` those that change nothing. A sample of the others is drawn by ``--seed``. When
``--minutes`` are over, what is left counts as not run. ``--save`` keeps the result in
``benchmarks/results/``. It ends with status 1 when too many survive.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Iterator, Sequence

from tests.mutants import report
from tests.mutants.mutants import Mutant, by_hand, sample
from tests.mutants.report import Tried
from tests.mutants.targets import TARGETS
from tests.mutants.trial import Workshop, workshop

#: Tests that run this many times longer than without a mistake are taken to hang.
_SLACK, _SLACK_SECONDS = 3.0, 20.0
_FIRST_SECONDS = 600.0
_FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--each", type=int, default=20, help="mutants of each target, drawn by the seed")
    add("--seed", type=int, default=1)
    add("--minutes", type=float, default=60.0, help="for everything")
    add("--only", default="", help="targets and files whose names hold this")
    add("--save", action="store_true")
    options = vars(parser.parse_args(arguments))
    save = options.pop("save")
    mutants = list(_drawn(options["each"], options["seed"], options["only"]))
    tried = _tried(mutants, time.monotonic() + 60 * options["minutes"])
    report.show(tried, f"{len(mutants)} mutants, seed {options['seed']}")
    if save:
        report.save(tried, options)
    sys.exit(report.counted(tried).share < report.GOAL)


def _drawn(each: int, seed: int, only: str) -> Iterator[Mutant]:
    for mutant in (*by_hand(), *(one for to in TARGETS for one in sample(to, each, seed))):
        if only in mutant.target or only in mutant.path:
            yield mutant


def _tried(mutants: Sequence[Mutant], end: float) -> list[Tried]:
    tried = list[Tried]()
    usual = dict[tuple[str, ...], float | None]()
    with workshop() as shop:
        for number, mutant in enumerate(mutants, 1):
            if mutant.equivalent:
                tried.append(Tried(mutant, "equivalent"))
            elif time.monotonic() > end:
                tried.append(Tried(mutant, "not run"))
            else:
                if mutant.tests not in usual:
                    usual[mutant.tests] = _usual_seconds(shop, mutant.tests)
                tried.append(_judged(mutant, shop, usual[mutant.tests]))
            one = tried[-1]
            where = f"{mutant.path}:{mutant.line}"
            print(f"{number}/{len(mutants)} {one.how} {one.seconds:.0f} s {where}", flush=True)
    return tried


def _usual_seconds(shop: Workshop, tests: tuple[str, ...]) -> float | None:
    """Runs the tests without a mistake. ``None`` if they fail even so; then they can't judge
    mutants."""
    outcome = shop.run(tests, _FIRST_SECONDS)
    if outcome.passed:
        return outcome.seconds
    print(f"{' '.join(tests)} fail without any mistake:\n{outcome.said}", file=sys.stderr)
    return None


def _judged(mutant: Mutant, shop: Workshop, usual: float | None) -> Tried:
    if usual is None:
        return Tried(mutant, "not run")
    outcome = shop.run(mutant.tests, _SLACK * usual + _SLACK_SECONDS, mutant)
    if outcome.timed_out:
        return Tried(mutant, "timed out", outcome.seconds)
    if outcome.passed:
        return Tried(mutant, "survived", outcome.seconds)
    failed = _FAILED.search(outcome.said)
    return Tried(mutant, "killed", outcome.seconds, failed[1] if failed else "")


if __name__ == "__main__":
    main()
