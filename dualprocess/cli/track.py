"""``dualprocess track``: sends an ended job to an experiment tracker."""

from __future__ import annotations

import tempfile
from enum import StrEnum
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from dualprocess.cli.jobs import JobId
from dualprocess.cli.session import BAD_INPUT, ApiKey, Json, Url, connected, fail, tell, tell_json
from dualprocess.protocol import DEFAULT_URL
from dualprocess.tracking import record


class Tracker(StrEnum):
    """Each is a module of ``dualprocess.tracking`` and an extra of the distribution."""

    MLFLOW = "mlflow"
    WANDB = "wandb"


def register(app: typer.Typer) -> None:
    app.command()(track)


def track(
    job_id: JobId,
    to: Annotated[Tracker, typer.Option(help="The tracker; its own settings say where it is.")],
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    json: Json = False,
) -> None:
    """Send an ended job to an experiment tracker: settings, curves, scores, files."""
    if find_spec(to.value) is None:
        fail(f"{to} is not installed here: pip install 'dualprocess[{to}]'", BAD_INPUT)
    tracker = import_module(f"dualprocess.tracking.{to}")
    with connected(url, api_key) as client, tempfile.TemporaryDirectory() as folder:
        where = tracker.log(record.read(client, job_id, Path(folder)))
    if json:
        tell_json({"id": job_id, "run": where})
    else:
        tell(where)
