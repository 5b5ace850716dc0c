"""Prints a run as a table, and writes it to a file."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.load.crowding import Crowded
from benchmarks.load.run import ALONE, READ, SUBMIT, Options, Result
from benchmarks.machine import provenance

#: The goal: p99 of submitting and reading may be this many times that of ``/healthz``.
TARGET = 5.0
_PATH = Path(__file__).parents[1] / "results" / "load.json"


def show(result: Result, options: Options) -> None:
    """Prints the table."""
    console = Console()
    title = (
        f"{options.leases} leases, {options.queued} queued jobs, {options.streams} event streams"
    )
    table = Table(title=title)
    table.add_column("")
    for header in ("requests/s", "p50 ms", "p99 ms", "p99 / healthz", "errors"):
        table.add_column(header, justify="right", no_wrap=True)
    ratios = _ratios(result)
    for what, measured in result.latencies.items():
        table.add_row(
            what,
            f"{measured.per_second:.1f}",
            f"{measured.percentile_ms(50):.1f}",
            f"{measured.percentile_ms(99):.1f}",
            f"{ratios[what]:.1f}" + (f" (≤ {TARGET:g})" if what in (SUBMIT, READ) else ""),
            str(measured.errors.total()),
        )
    console.print(table)
    before, middle, after = result.memory_mb
    growth = f"{after / before - 1:+.1%}"
    done = result.holders
    console.print(
        f"{done.renewed} renewals, {done.told} steps told, {done.lost} leases lost\n"
        f"{result.heard} events over the streams; API memory {before:.1f} MB before an hour's "
        f"worth of them, {middle:.1f} in the middle, {after:.1f} after ({growth})\n"
        f"{_crowded(result.crowd)}\n"
        f"errors: {result.errors.total()} {dict(result.errors) or ''}",
        highlight=False,
    )


def save(result: Result, options: Options) -> None:
    """Writes ``benchmarks/results/load.json``."""
    ratios = _ratios(result)
    saved = provenance() | {
        "options": asdict(options),
        "requests": {
            what: {
                "per_second": measured.per_second,
                "p50_ms": measured.percentile_ms(50),
                "p99_ms": measured.percentile_ms(99),
                "p99_to_healthz": ratios[what],
                "count": len(measured.seconds),
                "errors": measured.errors.total(),
            }
            for what, measured in result.latencies.items()
        },
        "memory_mb": list(result.memory_mb),
        "events_heard": result.heard,
        "crowd": asdict(result.crowd.opened)
        | {
            "redis_connections": list(result.crowd.redis_connections),
            "readyz": {
                when: {
                    "p50_ms": measured.percentile_ms(50),
                    "p99_ms": measured.percentile_ms(99),
                    "most_ms": measured.percentile_ms(100),
                }
                for when, measured in result.crowd.others.items()
            },
        },
        "workers": asdict(result.holders),
        "errors": dict(result.errors),
    }
    _PATH.parent.mkdir(exist_ok=True)
    _PATH.write_text(json.dumps(saved, indent=2) + "\n", encoding="utf-8")


def _crowded(crowd: Crowded) -> str:
    waits = ", ".join(
        f"{measured.percentile_ms(99):.0f} ms {when}" for when, measured in crowd.others.items()
    )
    before, with_them = crowd.redis_connections
    return (
        f"a crowd of streams of one job: {crowd.opened.taken} accepted and {crowd.opened.refused} "
        f"refused in {crowd.opened.seconds:.1f} s; p99 of GET /readyz: {waits}; Redis connections "
        f"{before} before, {with_them} with them"
    )


def _ratios(result: Result) -> dict[str, float]:
    base = result.latencies[ALONE].percentile_ms(99)
    return {what: one.percentile_ms(99) / base for what, one in result.latencies.items()}
