"""``dualprocess backup`` and ``dualprocess restore``, run where the service's stores are."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from dualprocess.cli.up import need_services

Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of the backup.")]
Data = Annotated[
    Path | None,
    typer.Option(help="Data folder of `dualprocess up`, which has both stores: ./data."),
]
RedisUrl = Annotated[
    str | None,
    typer.Option("--redis-url", help="Address of the service's Redis, if `up` did not start it."),
]
Artifacts = Annotated[
    str | None,
    typer.Option(help="The service's artifact store: file:///folder or s3://bucket/prefix."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output, for programs.")]


def register(app: typer.Typer) -> None:
    app.command()(backup)
    app.command()(restore)


def backup(
    folder: Folder,
    data: Data = None,
    redis_url: RedisUrl = None,
    artifacts: Artifacts = None,
    json: Json = False,
) -> None:
    """Copy all jobs, keys and files into FOLDER, which must be empty or new. The service may run.

    Redis and the artifact store come from --data, --redis-url and --artifacts, or from
    DUALPROCESS_REDIS_URL and DUALPROCESS_ARTIFACTS. Running jobs are saved with their checkpoints.
    """
    _run("save", folder, data, redis_url, artifacts, json)


def restore(
    folder: Folder,
    data: Data = None,
    redis_url: RedisUrl = None,
    artifacts: Artifacts = None,
    json: Json = False,
) -> None:
    """Write the backup in FOLDER into a Redis without jobs, and into the artifact store.

    Queued jobs are queued again; running jobs go on from their checkpoints.
    """
    _run("restore", folder, data, redis_url, artifacts, json)


def _run(
    what: str,
    folder: Path,
    data: Path | None,
    redis_url: str | None,
    artifacts: str | None,
    json: bool,
) -> None:
    need_services()
    command = [sys.executable, "-m", "services.orchestrator.backup", what]
    values = {"data": data, "redis-url": redis_url, "artifacts": artifacts}
    command += [f"--{name}={value}" for name, value in values.items() if value is not None]
    command += ["--json"] if json else []
    os.execv(sys.executable, [*command, "--", str(folder)])  # noqa: S606
