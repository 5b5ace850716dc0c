"""A job's progress on a terminal."""

from __future__ import annotations

import contextlib

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from dualprocess import printable
from dualprocess.cli.pictures import painter
from dualprocess.cli.session import stderr
from dualprocess.client import Client
from dualprocess.errors import JobCancelled, JobFailed
from dualprocess.schemas import (
    EventRecord,
    Job,
    PreviewEvent,
    SkippedStepEvent,
    StatusEvent,
    StepEvent,
    WarningEvent,
)

#: A terminal with this many columns has room for drift and diversity.
_WIDE = 132
#: One column per seed: the base model's picture above the LoRA's.
_SAMPLES = "samples.png"


def watch(client: Client, job: Job) -> Job:
    """Shows a bar with loss and probability until the job ends, and pictures if the terminal can
    show them. Returns the ended job."""
    paint = painter(stderr)
    with Progress(*columns(), console=stderr) as progress:
        ahead = f", {job.position} jobs ahead of it" if job.position else ""
        task = progress.add_task(
            printable.line(job.name or job.id),
            total=job.steps or None,
            measures="",
            state=f"{job.status}{ahead}",
        )
        for record in client.events(job.id):
            show(progress, task, record)
            event = record.event
            # Earlier previews are not shown again.
            if paint and isinstance(event, PreviewEvent) and event.step > job.step:
                paint(client.read_artifact(job.id, event.artifact.name))
    job = client.job(job.id)
    if paint and any(artifact.name == _SAMPLES for artifact in job.artifacts):
        paint(client.read_artifact(job.id, _SAMPLES))
    return job


def columns() -> tuple[ProgressColumn, ...]:
    """The columns of a bar: name, progress, measurements, state. Texts of a task are never read as
    markup."""
    return (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[measures]}", markup=False),
        TextColumn("{task.fields[state]}", markup=False),
        TimeRemainingColumn(),
    )


def ended(client: Client, job: Job) -> Job:
    """Waits for the job's end, and returns the job, however it ended."""
    with contextlib.suppress(JobFailed, JobCancelled):
        client.wait(job.id)
    return client.job(job.id)


def show(progress: Progress, task: TaskID, record: EventRecord) -> None:
    event = record.event
    if isinstance(event, StepEvent):
        measures = f"loss {event.loss:.3f}  probability {event.probability.geometric_mean:.3f}"
        if progress.console.width >= _WIDE:
            measures += _changed(event)
        progress.update(task, completed=event.step, total=event.steps, measures=measures)
    elif isinstance(event, SkippedStepEvent):
        measures = printable.line(f"skipped: {event.reason}")
        progress.update(task, completed=event.step, measures=measures)
    elif isinstance(event, WarningEvent):
        progress.console.print(printable.lines(f"warning: {event.message}"), markup=False)
    elif isinstance(event, StatusEvent):
        waiting = f": waits for {event.waiting_for}" if event.waiting_for else ""
        progress.update(task, state=printable.line(f"{event.status}{waiting}"))


def _changed(step: StepEvent) -> str:
    parts = {"drift": step.drift, "diversity": step.diversity}
    return "".join(f"  {name} {value:.2f}" for name, value in parts.items() if value is not None)
