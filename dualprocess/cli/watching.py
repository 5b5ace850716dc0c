"""A job's progress on a terminal."""

from __future__ import annotations

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from dualprocess.cli.session import stderr
from dualprocess.client import Client
from dualprocess.schemas import EventRecord, Job, SkippedStepEvent, StatusEvent, StepEvent


def watch(client: Client, job: Job) -> Job:
    """Shows a bar with loss and probability until the job ends; the job then."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[measures]}"),
        TextColumn("{task.fields[state]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=stderr) as progress:
        task = progress.add_task(
            job.name or job.id, total=job.steps or None, measures="", state=job.status
        )
        for record in client.events(job.id):
            show(progress, task, record)
    return client.job(job.id)


def show(progress: Progress, task: TaskID, record: EventRecord) -> None:
    event = record.event
    if isinstance(event, StepEvent):
        measures = f"loss {event.loss:.3f}  probability {event.probability.geometric_mean:.3f}"
        progress.update(task, completed=event.step, total=event.steps, measures=measures)
    elif isinstance(event, SkippedStepEvent):
        progress.update(task, completed=event.step, measures=f"skipped: {event.reason}")
    elif isinstance(event, StatusEvent):
        waiting = f": waits for {event.waiting_for}" if event.waiting_for else ""
        progress.update(task, state=f"{event.status}{waiting}")
