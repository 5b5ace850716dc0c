"""Puts single mistakes into the code and checks whether the tests notice: ``make mutants``.

``targets`` says which files and which tests, ``mistakes`` has those made by hand, all of which are
tried, ``equivalent`` those that change nothing. A sample of the others is drawn by ``--seed``. When
``--minutes`` are over, what is left counts as not run. ``--save`` keeps each result in
``benchmarks/results/`` as it comes, beside those of files that ``--only`` leaves out; ``--again``
then tries no mutant that was killed. It ends with status 1 when too many survive.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Iterator, Sequence
from functools import cache

from tests.mutants import report
from tests.mutants.mutants import Mutant, by_hand, sample
from tests.mutants.report import Results, Tried
from tests.mutants.targets import TARGETS
from tests.mutants.trial import Workshop, workshop

#: The time for the tests of one mutant. pytest-timeout ends a single test that hangs earlier.
_SECONDS = 600.0
_FAILED = re.compile(r"^(?:FAILED|ERROR) (tests/.+?)(?: - (.*))?$", re.MULTILINE)
#: A test that pytest-timeout ended has noticed nothing.
_WAITED = "from pytest-timeout"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--each", type=int, default=20, help="mutants of each target, drawn by the seed")
    add("--seed", type=int, default=1)
    add("--minutes", type=float, default=60.0, help="for everything")
    add("--only", default="", help="targets and files whose names hold this")
    add("--again", action="store_true", help="only what no saved run has seen killed")
    add("--save", action="store_true")
    options = vars(parser.parse_args(arguments))
    save, again = options.pop("save"), options.pop("again")
    mutants = list(_drawn(options["each"], options["seed"], options["only"]))
    results = Results(mutants, options)
    tried = list[Tried]()
    for one in _tried(
        mutants, results if again else None, time.monotonic() + 60 * options["minutes"]
    ):
        tried.append(one)
        where = f"{one.mutant.path}:{one.mutant.line}"
        print(f"{len(tried)}/{len(mutants)} {one.how} {one.seconds:.0f} s {where}", flush=True)
        if save:
            results.save(tried)
    report.show(tried, f"{len(mutants)} mutants, seed {options['seed']}")
    sys.exit(report.counted(tried).share < report.GOAL)


def _drawn(each: int, seed: int, only: str) -> Iterator[Mutant]:
    for mutant in (*by_hand(seed), *(one for to in TARGETS for one in sample(to, each, seed))):
        if only in mutant.target or only in mutant.path:
            yield mutant


def _tried(mutants: Sequence[Mutant], known: Results | None, end: float) -> Iterator[Tried]:
    with workshop() as shop:
        for mutant in mutants:
            before = known.killed(mutant) if known else None
            if mutant.equivalent:
                yield Tried(mutant, "equivalent")
            elif before is not None:
                yield before
            elif time.monotonic() > end:
                yield Tried(mutant, "not run")
            else:
                yield _judged(mutant, shop)


def _judged(mutant: Mutant, shop: Workshop) -> Tried:
    outcome = shop.run(mutant.tests, _SECONDS, mutant)
    if outcome.passed:
        return Tried(mutant, "survived", outcome.seconds)
    failed = _FAILED.search(outcome.said)
    by, why = (failed[1], failed[2] or "") if failed else ("", "")
    if outcome.timed_out or _WAITED in why:
        return Tried(mutant, "timed out", outcome.seconds, by)
    if not _pass(shop, (by.partition("::")[0],) if by else mutant.tests):
        return Tried(mutant, "not run")
    return Tried(mutant, "killed", outcome.seconds, by)


@cache
def _pass(shop: Workshop, tests: tuple[str, ...]) -> bool:
    """Without a mistake. Where they fail even so, that says nothing of any mutant."""
    outcome = shop.run(tests, _SECONDS)
    if not outcome.passed:
        print(f"{' '.join(tests)} fail without any mistake:\n{outcome.said}", file=sys.stderr)
    return outcome.passed


if __name__ == "__main__":
    main()
