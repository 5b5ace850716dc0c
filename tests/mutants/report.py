"""The results of the mutants, as tables and as a file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.machine import provenance
from tests.mutants.mutants import Mutant

PATH = Path(__file__).parents[2] / "benchmarks" / "results" / "mutants.json"

#: The share of noticeable mutants that tests must notice, not counting timeouts.
GOAL = 0.9


@dataclass(frozen=True)
class Tried:
    """``how`` is killed, survived, timed out, equivalent or not run; ``by`` is the test that
    failed."""

    mutant: Mutant
    how: str
    seconds: float = 0.0
    by: str = ""


@dataclass
class Counts:
    killed: int = 0
    survived: int = 0
    timed_out: int = 0
    equivalent: int = 0
    not_run: int = 0

    @property
    def share(self) -> float:
        """Killed at once, of those that ran and are not equivalent."""
        return self.killed / max(1, self.killed + self.survived + self.timed_out)


def counted(tried: Sequence[Tried]) -> Counts:
    counts = Counts()
    for one in tried:
        field = one.how.replace(" ", "_")
        setattr(counts, field, getattr(counts, field) + 1)
    return counts


def _by_target(tried: Sequence[Tried]) -> dict[str, Counts]:
    names = dict.fromkeys(one.mutant.target for one in tried)
    return {name: counted([one for one in tried if one.mutant.target == name]) for name in names}


def show(tried: Sequence[Tried], title: str) -> None:
    """Prints the counts, and where a test is missing."""
    console = Console(width=None if Console().is_terminal else 160)
    table = Table(title=title)
    for header in ("target", "killed", "survived", "timed out", "equivalent", "not run", "share"):
        table.add_column(header, justify="left" if header == "target" else "right")
    for name, counts in (*_by_target(tried).items(), ("all", counted(tried))):
        numbers = [str(number) for number in asdict(counts).values()]
        table.add_row(name, *numbers, f"{counts.share:.0%}")
    console.print(table)
    for one in tried:
        if one.how in ("survived", "timed out"):
            mutant = one.mutant
            console.print(
                f"{one.how}: {mutant.path}:{mutant.line}\n  - {mutant.before}\n  + {mutant.after}",
                markup=False,
                highlight=False,
            )


def save(tried: Sequence[Tried], options: dict[str, object]) -> None:
    """Writes ``benchmarks/results/mutants.json``."""
    saved = provenance() | {
        "options": options,
        "goal": GOAL,
        "all": _counts(counted(tried)),
        "targets": {name: _counts(counts) for name, counts in _by_target(tried).items()},
        "mutants": [
            {
                "target": one.mutant.target,
                "file": one.mutant.path,
                "line": one.mutant.line,
                "before": one.mutant.before,
                "after": one.mutant.after,
                "how": one.how,
                **({"by": one.by} if one.by else {}),
                **({"why": one.mutant.equivalent} if one.mutant.equivalent else {}),
            }
            for one in tried
        ],
    }
    PATH.parent.mkdir(exist_ok=True)
    PATH.write_text(json.dumps(saved, indent=2, ensure_ascii=False) + "\n")


def _counts(counts: Counts) -> dict[str, float]:
    return asdict(counts) | {"share": round(counts.share, 3)}
