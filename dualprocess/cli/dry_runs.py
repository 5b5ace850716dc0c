"""``--dry-run``: prints how much work a request is, for a person or a program."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Annotated

import typer

from dualprocess.cli import telling
from dualprocess.cli.session import print_json, tell
from dualprocess.schemas import DryRun, WorkPart

IsDry = Annotated[
    bool,
    typer.Option("--dry-run", help="Only check it and print its work; nothing is queued."),
]


def together(several: Sequence[DryRun]) -> DryRun:
    """The sum of one or more requests that are sent one after the other."""
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
        yield f"the key's quota of work: {told.quota:,}; {told.left:,.3f} of it is left now"
        if told.work > told.left:
            yield "this is more than is left: wait until jobs end, cancel some, or ask for less"
    if told.base is not None:
        yield from telling.base(told.base)
    for warning in told.warnings:
        yield f"warning: {warning}"
