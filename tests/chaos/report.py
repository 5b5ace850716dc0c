"""A verdict as a table."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from tests.chaos.faults import Action
from tests.chaos.stack import Kind
from tests.chaos.verdict import Verdict


def show(verdict: Verdict, title: str) -> None:
    """Prints each promise, whether it was kept, and the faults of the stack."""
    console = Console()
    console.print(promises(verdict, title))
    console.print(_faults(verdict))
    for sentence in verdict.broken:
        console.print(sentence, markup=False, highlight=False, soft_wrap=True)


def promises(verdict: Verdict, title: str) -> Table:
    """What was promised, and what came of it."""
    table = Table(title=title)
    table.add_column("")
    for header in ("count", "must be"):
        table.add_column(header, justify="right")
    table.add_row("jobs acknowledged", str(verdict.acknowledged), str(verdict.wanted))
    table.add_row("jobs finished", str(verdict.finished), str(verdict.wanted))
    zeros = {
        "jobs lost": verdict.lost,
        "results whose bytes differ": verdict.differing,
        "duplicate finishes": verdict.finished_again,
        "events missed by a listener": verdict.missed,
        "events heard twice": verdict.twice,
        "events told twice by an attempt": verdict.told_twice,
        "answers with status 500": verdict.mistakes,
    }
    for what, count in zeros.items():
        table.add_row(what, str(count), "0")
    table.add_section()
    table.add_row("listeners", str(verdict.listened), "")
    table.add_row("events heard", str(verdict.heard), "")
    table.add_row("attempts that chaos ended", str(verdict.attempts_ended), "")
    table.add_row("attempts that went on from a checkpoint", str(verdict.resumed), "")
    table.add_row("seconds", f"{verdict.seconds:.0f}", "")
    return table


def _faults(verdict: Verdict) -> Table:
    table = Table(title=f"{verdict.faults.total()} faults injected")
    table.add_column("")
    for action in Action:
        table.add_column(action, justify="right")
    done = {(fault.action, fault.kind): count for fault, count in verdict.faults.items()}
    for kind in Kind:
        table.add_row(kind, *[str(done.get((action, kind), 0)) for action in Action])
    return table
