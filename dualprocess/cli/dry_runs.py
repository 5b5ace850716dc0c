"""``--dry-run``: prints what a request comes to, for a person or a program."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import typer
import yaml

from dualprocess.cli import telling
from dualprocess.cli.session import print_json, tell
from dualprocess.schemas import DryRun, QueueAhead, ResolvedSpec, TimeEstimate, WorkPart

IsDry = Annotated[
    bool,
    typer.Option("--dry-run", help="Only check it, and print what it comes to; nothing is queued."),
]

#: Fields that hold files in base64.
_FILES = ("image", "file")


def together(several: Sequence[DryRun]) -> DryRun:
    """The sum of one or more requests that are sent one after the other."""
    parts: defaultdict[WorkPart, float] = defaultdict(float)
    for one in several:
        for part, work in one.parts.items():
            parts[part] += work
    times = [one.time for one in several if one.time]
    return several[0].model_copy(
        update={
            "jobs": sum(one.jobs for one in several),
            "work": sum(one.work for one in several),
            "parts": dict(parts),
            "warnings": list(dict.fromkeys(text for one in several for text in one.warnings)),
            "refused": next((one.refused for one in several if one.refused), None),
            "queues": list(
                {
                    (queue.generator, *queue.vlms): queue for one in several for queue in one.queues
                }.values()
            ),
            "time": TimeEstimate.together(times) if times else None,
        }
    )


def show(told: DryRun, *, json: bool) -> None:
    if json:
        print_json(told)
    else:
        tell("\n".join(_lines(told)))


def _lines(told: DryRun) -> Iterator[str]:
    if told.spec is not None:
        yield f"{_as_yaml(told.spec)}---"
    yield f"{told.jobs:,} job{'' if told.jobs == 1 else 's'}, work: {told.work:,.3f}"
    for part, work in sorted(told.parts.items(), key=lambda item: -item[1]):
        yield f"  {part}: {work:,.3f}"
    if told.quota is not None and told.left is not None:
        yield f"the key's quota of work: {told.quota:,}; {told.left:,.3f} of it is left now"
    if told.base is not None:
        yield from telling.base(told.base)
    yield from map(_queue, told.queues)
    if told.time is not None:
        yield from _time(told.time)
    for warning in told.warnings:
        yield f"warning: {warning}"
    if told.refused is not None:
        yield f"refused for now: {told.refused}"


def _queue(queue: QueueAhead) -> str:
    needs = " with ".join(filter(None, (queue.generator, " and ".join(queue.vlms))))
    workers = f"{queue.workers} worker{'' if queue.workers == 1 else 's'}"
    alive = workers if queue.workers else "no live worker"
    return f"queue of {needs}: {queue.waiting:,} before it, {queue.running:,} running, {alive}"


def _time(time: TimeEstimate) -> Iterator[str]:
    if time.seconds is not None:
        step = "" if time.step_seconds is None else f", {time.step_seconds:.3g} s a step"
        yield f"time: about {_duration(time.seconds)}{step}"
    yield f"  {time.basis}"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.2g} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{minutes} min"


def _as_yaml(spec: ResolvedSpec) -> str:
    """The spec, with files by their size."""
    shown = _shortened(spec.model_dump(mode="json"))
    return yaml.safe_dump(shown, sort_keys=False, allow_unicode=True, width=100)


def _shortened(part: Any, name: str = "") -> Any:
    match part:
        case dict():
            return {key: _shortened(value, key) for key, value in part.items()}
        case list():
            return [_shortened(value) for value in part]
        case str() if name in _FILES:
            return f"({len(part) * 3 // 4:,} bytes)"
    return part
