"""``submit watch list show cancel delete pull``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Column, Table
from rich.text import Text

from dualprocess import printable
from dualprocess.cli import dry_runs, specs, telling
from dualprocess.cli.completion import job_ids
from dualprocess.cli.downloads import download
from dualprocess.cli.dry_runs import IsDry
from dualprocess.cli.files import BadFile
from dualprocess.cli.looking import look_at_base
from dualprocess.cli.session import (
    BAD_INPUT,
    JOB_ENDED_BADLY,
    ApiKey,
    Json,
    Url,
    connected,
    fail,
    note,
    print_json,
    stdout,
    tell,
    tell_json,
)
from dualprocess.cli.watching import ended
from dualprocess.cli.watching import watch as watch_job
from dualprocess.lora_forms import LoraForm
from dualprocess.protocol import DEFAULT_URL
from dualprocess.schemas import Job, JobStatus

JobId = Annotated[str, typer.Argument(metavar="ID", autocompletion=job_ids)]


def register(app: typer.Typer) -> None:
    for command in (submit, watch, show, cancel, delete, pull):
        app.command()(command)
    app.command("list")(list_jobs)


def submit(
    file: Annotated[str, typer.Argument(help="YAML or JSON; - for standard input.")],
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="Change a field: optimizer.steps=50.")
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Wait until it ends, and show its progress.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until it ends, and print nothing meanwhile.")
    ] = False,
    look: Annotated[
        bool,
        typer.Option(
            "--look",
            help="First draw and score some images of the base model, so that it is known what it "
            "does already; with --dry-run, queue nothing after that.",
        ),
    ] = False,
    dry_run: IsDry = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    json: Json = False,
) -> None:
    """Queue a job."""
    try:
        spec = specs.load(file, changes or [])
    except BadFile as error:
        fail(str(error), BAD_INPUT)
    for path in specs.in_quotes(changes or []):
        note(f"--set {path}: the quotes are part of the text")
    with connected(url, api_key) as client:
        if look:
            look_at_base(client, spec)
        if dry_run:
            dry_runs.show(client.dry_run(spec), json=json)
            return
        job = client.submit(spec)
        if watch:
            job = watch_job(client, job)
        elif wait:
            job = ended(client, job)
        _tell(job, json=json)
    _exit_with(job)


def watch(
    job_id: JobId, url: Url = DEFAULT_URL, api_key: ApiKey = None, json: Json = False
) -> None:
    """Follow a job until it ends."""
    with connected(url, api_key) as client:
        job = watch_job(client, client.job(job_id))
        _tell(job, json=json)
    _exit_with(job)


def show(job_id: JobId, url: Url = DEFAULT_URL, api_key: ApiKey = None, json: Json = False) -> None:
    """Show a job as it is now."""
    with connected(url, api_key) as client:
        _tell(client.job(job_id), json=json)


def cancel(
    job_id: JobId, url: Url = DEFAULT_URL, api_key: ApiKey = None, json: Json = False
) -> None:
    """Stop a job; what it learned so far is still exported."""
    with connected(url, api_key) as client:
        _tell(client.cancel(job_id), json=json)


def delete(
    job_id: JobId, url: Url = DEFAULT_URL, api_key: ApiKey = None, json: Json = False
) -> None:
    """Delete an ended job with all its files."""
    with connected(url, api_key) as client:
        client.delete(job_id)
    if json:
        tell_json({"id": job_id, "deleted": True})
    else:
        tell(f"job {job_id} is deleted")


def list_jobs(
    status: Annotated[JobStatus | None, typer.Option(help="Only jobs with this status.")] = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    json: Json = False,
) -> None:
    """List jobs, newest first."""
    with connected(url, api_key) as client:
        jobs = list(client.jobs(status=status))
    if json:
        print_json(*jobs, many=True)
        return
    # A pipe has 80 columns. To fit in them only these columns are wrapped: two over two lines, the
    # name over more.
    pairs = [Column(head, min_width=7) for head in ("step loss", "base → LoRA")]
    name = Column("name", min_width=6, overflow="fold")
    table = Table(
        *_whole("id", "kind", "status"),
        *pairs,
        *_whole("drift", "div."),
        name,
        box=SIMPLE_HEAD,
        show_edge=False,
        padding=0,
    )
    for job in jobs:
        # As text, so that brackets in a name are not read as markup.
        table.add_row(*map(Text, map(printable.line, telling.row(job))))
    stdout.print(table)


def _whole(*heads: str) -> list[Column]:
    return [Column(head, no_wrap=True) for head in heads]


def pull(
    job_id: JobId,
    to: Annotated[
        Path | None, typer.Option(help="Folder for the files; by default named by the job's id.")
    ] = None,
    form: Annotated[
        LoraForm | None,
        typer.Option(
            "--as", help="Only the LoRA in this form, with its pictures and a model card."
        ),
    ] = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    json: Json = False,
) -> None:
    """Download all files of a job, or its LoRA in the form that a tool loads."""
    folder = to or Path(job_id)
    with connected(url, api_key) as client:
        if form is not None:
            paths = client.pull(job_id, folder, form)
            if json:
                tell_json([{"name": path.name, "path": str(path)} for path in paths])
            else:
                tell("\n".join(map(str, paths)))
            return
        job = client.job(job_id)
        if not job.artifacts:
            fail(f"job {job.id} is {job.status} and has no files yet", BAD_INPUT)
        folder.mkdir(parents=True, exist_ok=True)
        pulled = []
        for artifact in job.artifacts:
            path = download(client, job.id, artifact.name, folder)
            pulled.append(artifact.model_dump(mode="json") | {"path": str(path)})
            if not json:
                tell(str(path))
    if json:
        tell_json(pulled)


def _tell(job: Job, *, json: bool) -> None:
    if json:
        print_json(job)
    else:
        tell("\n".join(telling.lines(job)))


def _exit_with(job: Job) -> None:
    if job.status in (JobStatus.FAILED, JobStatus.CANCELLED):
        raise typer.Exit(JOB_ENDED_BADLY)
