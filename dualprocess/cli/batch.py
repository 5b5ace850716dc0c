"""``dualprocess batch``: a data set of jobs, their files, and one report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from dualprocess import printable
from dualprocess.cli import batch_report, datasets, dry_runs, halving, outcomes, specs, watching
from dualprocess.cli.downloads import download
from dualprocess.cli.dry_runs import IsDry
from dualprocess.cli.files import BadFile
from dualprocess.cli.outcomes import REPORT, Outcome
from dualprocess.cli.session import (
    BAD_INPUT,
    JOB_ENDED_BADLY,
    ApiKey,
    Json,
    Url,
    connected,
    fail,
    note,
    stderr,
    tell,
    tell_json,
)
from dualprocess.client import Client
from dualprocess.errors import NotFound
from dualprocess.protocol import DEFAULT_URL
from dualprocess.schemas import BatchRequest, JobStatus
from dualprocess.schemas.batches import MAX_BATCH_JOBS


def register(app: typer.Typer) -> None:
    app.command()(batch)


def batch(
    file: Annotated[
        str,
        typer.Argument(help="YAML: dataset, or spec with prompts and seeds; - for standard input."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for files and report; by default named like the data set."),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change a field of every job: generator=tiny-flux."),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Stay until all have ended.")] = False,
    halve: Annotated[
        bool,
        typer.Option(
            "--halve",
            help="With --watch: end the worse half of a sweep early, then the worse half of the "
            "rest, and so on. They keep what they learned.",
        ),
    ] = False,
    dry_run: IsDry = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    json: Json = False,
) -> None:
    """Queue a data set of jobs; fetch what has ended; write one report.

    Run it again with the same folder to go on: finished jobs are skipped, failed ones are submitted
    again.
    """
    if halve and not watch:
        fail(
            "--halve: needs --watch, since this command compares the jobs while they run", BAD_INPUT
        )
    try:
        asked = datasets.load(file, changes or [])
    except BadFile as error:
        fail(str(error), BAD_INPUT)
    for path in specs.in_quotes(changes or []):
        note(f"--set {path}: the quotes are part of the text")
    folder = out or Path("batch" if file == "-" else Path(file).stem)
    report = folder / REPORT
    with connected(url, api_key) as client:
        found = outcomes.outcomes(asked, folder)
        if dry_run:
            _tell_dry_run(client, found, json=json)
            return
        _refresh(client, found)
        _submit(client, found, folder)
        if halve:
            halving.watch(client, found)
        elif watch:
            _watch(client, found)
        _fetch(client, found)
        report.write_text(batch_report.html(found, folder), encoding="utf-8")
    _tell(found, report, json=json)


def _refresh(client: Client, found: Sequence[Outcome]) -> None:
    """Fetches the state of every job that is not done. A job that was deleted will be submitted
    again."""
    for outcome in found:
        if outcome.job is not None and not outcome.is_done:
            try:
                outcome.record(client.job(outcome.job.id))
            except NotFound:
                outcome.job = outcome.ended_early = None


def _submit(client: Client, found: Sequence[Outcome], folder: Path) -> None:
    key, begun = outcomes.interrupted(found, folder)
    if begun:
        _ask(client, begun, folder, key)
    if wanted := [outcome for outcome in found if not outcome.is_begun]:
        _ask(client, wanted, folder, outcomes.submission(wanted, folder))


def _ask(client: Client, wanted: Sequence[Outcome], folder: Path, key: str) -> None:
    for number, some in enumerate(_parts(wanted)):
        request = BatchRequest(specs=[outcome.spec for outcome in some])
        made = client.submit_batch(request, idempotency_key=f"{key}-{number}")
        jobs = {job.id: job for job in client.batch_jobs(made.id)}
        for outcome, entry in zip(some, made.jobs, strict=True):
            if entry.id in jobs:
                outcome.record(jobs[entry.id])
    outcomes.submitted(folder)


def _tell_dry_run(client: Client, found: Sequence[Outcome], *, json: bool) -> None:
    """Prints the work of those that have no job yet, according to the folder."""
    wanted = [outcome for outcome in found if not outcome.is_begun]
    if not wanted:
        fail("each already has a job, so nothing would be queued", BAD_INPUT)
    told = [
        client.dry_run(BatchRequest(specs=[outcome.spec for outcome in some]))
        for some in _parts(wanted)
    ]
    dry_runs.show(dry_runs.together(told), json=json)


def _parts(wanted: Sequence[Outcome]) -> Iterator[Sequence[Outcome]]:
    for begin in range(0, len(wanted), MAX_BATCH_JOBS):
        yield wanted[begin : begin + MAX_BATCH_JOBS]


def _watch(client: Client, found: Sequence[Outcome]) -> None:
    """Returns when all have ended, in the order in which they are queued."""
    with Progress(*watching.columns(), console=stderr) as progress:
        bar = progress.add_task("jobs", total=len(found), measures="", state="")
        for outcome in found:
            if outcome.job is not None and not outcome.job.status.is_final:
                name = printable.line(outcome.job.name or outcome.job.id)
                steps = outcome.job.steps or None
                task = progress.add_task(name, total=steps, measures="", state="")
                for record in client.events(outcome.job.id):
                    watching.show(progress, task, record)
                progress.remove_task(task)
                outcome.record(client.job(outcome.job.id))
            progress.advance(bar)


def _fetch(client: Client, found: Sequence[Outcome]) -> None:
    for outcome in found:
        if outcome.job is not None and outcome.job.status.is_final:
            for artifact in outcome.missing():
                download(client, outcome.job.id, artifact.name, outcome.folder)


def _tell(found: Sequence[Outcome], report: Path, *, json: bool) -> None:
    jobs = [outcome.job for outcome in found if outcome.job is not None]
    counts = {status: sum(job.status == status for job in jobs) for status in JobStatus}
    if json:
        folders = [str(outcome.folder) for outcome in found]
        told = [job.model_dump(mode="json") for job in jobs]
        tell_json({"report": str(report), "counts": counts, "folders": folders, "jobs": told})
    else:
        shown = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
        typer.echo(f"{len(found)} jobs: {shown}")
        if early := sum(outcome.ended_early is not None for outcome in found):
            typer.echo(f"ended early by --halve, as the worse of their sweep: {early}")
        if any(not job.status.is_final for job in jobs):
            typer.echo(
                "run this again, or with --watch, to fetch the files of jobs that have "
                "ended by then"
            )
        tell(str(report))
    if any(outcome.ended_badly for outcome in found):
        raise typer.Exit(JOB_ENDED_BADLY)
