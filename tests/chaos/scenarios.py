"""``python -m tests.chaos.scenarios``: faults that need a site of their own, one after another.

Each is a test of the suite that notes what it counted. It ends with status 1 if one failed.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[2]
_TESTS = "tests/orchestrator"
#: What happens, and the test that lets it happen. Each runs on every kind of Redis that is there.
SCENARIOS: Mapping[str, str] = {
    "one of two generators fails every call": (
        f"{_TESTS}/test_sick_devices.py::"
        "test_one_of_two_generators_that_fails_every_call_loses_no_job"
    ),
    "six workers share twelve jobs": f"{_TESTS}/test_queue.py::test_jobs_spread_over_idle_workers",
    "Sentinel makes a replica the master": (
        f"{_TESTS}/test_sentinels.py::test_a_failover_in_the_midst_of_jobs_loses_none"
    ),
    "the new master never heard of a claim": (
        f"{_TESTS}/test_queue.py::test_tokens_stay_unique_when_redis_forgets_its_count"
    ),
    "Redis and files are lost, and restored": (
        f"{_TESTS}/test_backup.py::test_every_job_comes_back_and_goes_on"
    ),
}


@dataclass
class Outcome:
    """What a scenario's tests counted, and how long they took."""

    passed: bool = True
    runs: int = 0
    counted: dict[str, object] = field(default_factory=dict)
    seconds: float = 0.0


class Watch:
    """A plugin of pytest that keeps what each test noted with ``record_property``."""

    def __init__(self) -> None:
        self.outcomes = {name: Outcome() for name in SCENARIOS}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for name, test in SCENARIOS.items():
            if report.nodeid.partition("[")[0] == test:
                outcome = self.outcomes[name]
                outcome.seconds += report.duration
                outcome.passed &= not report.failed
                if report.when == "call":
                    outcome.runs += 1
                    outcome.counted |= dict(report.user_properties)


def main() -> None:
    watch = Watch()
    status = pytest.main(
        [*SCENARIOS.values(), "-q", "--no-header", "-p", "no:cacheprovider", f"--rootdir={ROOT}"],
        plugins=[watch],
    )
    Console().print(table(watch.outcomes))
    # A test that did not run shows nothing.
    sys.exit(int(status) or int(any(not outcome.runs for outcome in watch.outcomes.values())))


def table(outcomes: Mapping[str, Outcome]) -> Table:
    shown = Table(title="faults with a site of their own")
    for header in ("", "counted", "kept", "seconds"):
        shown.add_column(header, justify="right" if header == "seconds" else "left")
    for name, outcome in outcomes.items():
        counted = ", ".join(f"{what} {count}" for what, count in outcome.counted.items())
        kept = "yes" if outcome.passed and outcome.runs else "NO"
        shown.add_row(name, counted, kept, f"{outcome.seconds:.1f}")
    return shown


if __name__ == "__main__":
    main()
