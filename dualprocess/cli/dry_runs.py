"""``--dry-run``: what a request would come to, for a person or a program."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Annotated

import typer

from dualprocess.cli.session import print_json, tell
from dualprocess.schemas import DryRun, WorkPart

IsDry = Annotated[
    bool,
    typer.Option("--dry-run", help="Only check it and tell its work; nothing is queued."),
]


def together(several: Sequence[DryRun]) -> DryRun:
    """Of requests that are sent one behind the other, at least one."""
    parts: defaultdict[WorkPart, float] = defaultdict(float)
    for one in several:
        for part, work in one.parts.items():
            parts[part] += work
    return several[0].model_copy(
        update={
            "jobs": sum(one.jobs for one in several),
            "work": sum(one.work for one in several),
            "parts": dict(parts),
            "warnings": list(dict.fromkeys(text for one in several for text in one.warnings)),
        }
    )


def show(told: DryRun, *, json: bool) -> None:
    if json:
        print_json(told)
    else:
        tell("\n".join(_lines(told)))


def _lines(told: DryRun) -> Iterator[str]:
    yield f"{told.jobs:,} job{'' if told.jobs == 1 else 's'}, work: {told.work:,.3f}"
    for part, work in sorted(told.parts.items(), key=lambda item: -item[1]):
        yield f"  {part}: {work:,.3f}"
    if told.quota is not None and told.left is not None:
        yield f"the key's quota of work: {told.quota:,}, of which {told.left:,.3f} is left now"
        if told.work > told.left:
            yield "it doesn't fit in now: wait until jobs end, cancel some, or ask for less"
    for warning in told.warnings:
        yield f"warning: {warning}"
