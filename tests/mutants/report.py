"""The results of the mutants, as tables and as a file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

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
    failed, ``commit`` where it ran, if not here."""

    mutant: Mutant
    how: str
    seconds: float = 0.0
    by: str = ""
    commit: str = ""


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
    return _counted(one.how for one in tried)


def _counted(ends: Iterable[str]) -> Counts:
    counts = Counts()
    for how in ends:
        field = how.replace(" ", "_")
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


class Results:
    """``benchmarks/results/mutants.json``: what is tried now, and the rest as it was."""

    def __init__(self, mutants: Sequence[Mutant], options: dict[str, object]) -> None:
        self._from = provenance()
        self._options = options
        rows = json.loads(PATH.read_text(encoding="utf-8"))["mutants"] if PATH.exists() else []
        self._before = {_identity(row): row for row in rows}
        now = {(mutant.target, mutant.path) for mutant in mutants}
        self._others = [row for row in rows if (row["target"], row["file"]) not in now]

    def killed(self, mutant: Mutant) -> Tried | None:
        """What was saved of a mutant that was killed before."""
        row = self._before.get(_identity(_row(Tried(mutant, ""))))
        if row is None or row["how"] != "killed":
            return None
        return Tried(mutant, "killed", by=row.get("by", ""), commit=row["commit"])

    def save(self, tried: Sequence[Tried]) -> None:
        now = [_row(one) | {"commit": one.commit or self._from["commit"]} for one in tried]
        rows = sorted([*self._others, *now], key=lambda row: (row["target"], row["file"]))
        names = dict.fromkeys(row["target"] for row in rows)
        saved = self._from | {
            "options": self._options,
            "goal": GOAL,
            "all": _table(rows),
            "targets": {name: _table(r for r in rows if r["target"] == name) for name in names},
            "mutants": rows,
        }
        text = json.dumps(saved, indent=2, ensure_ascii=False) + "\n"
        PATH.write_text(text, encoding="utf-8")


def _row(one: Tried) -> dict[str, Any]:
    return {
        "target": one.mutant.target,
        "file": one.mutant.path,
        "line": one.mutant.line,
        "before": one.mutant.before,
        "after": one.mutant.after,
        "how": one.how,
        **({"by": one.by} if one.by else {}),
        **({"why": one.mutant.equivalent} if one.mutant.equivalent else {}),
    }


def _identity(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("target", "file", "line", "before", "after"))


def _table(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    counts = _counted(row["how"] for row in rows)
    return asdict(counts) | {"share": round(counts.share, 3)}
