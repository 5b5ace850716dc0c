"""``dualprocess keys``: API keys, made where the service's Redis is."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from dualprocess.cli.up import need_services

#: All arguments but ``--data``, also ``--help``, are passed on to the module that does the work.
_PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def register(app: typer.Typer) -> None:
    app.command(context_settings=_PASSED_ON)(keys)


def keys(
    context: typer.Context,
    data: Annotated[
        Path | None,
        typer.Option(help="Data folder of the `dualprocess up` whose keys are meant: ./data."),
    ] = None,
) -> None:
    """Make, list and revoke API keys: create, list, revoke; --help after each says more."""
    need_services()
    command = [sys.executable, "-m", "services.orchestrator.keys"]
    command += [] if data is None else [f"--data={data}"]
    os.execv(sys.executable, [*command, *context.args])  # noqa: S606
