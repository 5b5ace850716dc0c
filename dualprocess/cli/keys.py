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
    data: Annotated[Path, typer.Option(help="Of `dualprocess up`, whose keys it is about.")] = Path(
        "data"
    ),
) -> None:
    """Make, list and revoke API keys: create, list, revoke; --help after each says more."""
    need_services()
    address = data / "redis" / "url"
    chosen = os.environ.get("DUALPROCESS_REDIS_URL") or os.environ.get("REDIS_URL")
    if not chosen and address.is_file():
        os.environ["DUALPROCESS_REDIS_URL"] = address.read_text(encoding="utf-8")
    command = [sys.executable, "-m", "services.orchestrator.keys", *context.args]
    os.execv(sys.executable, command)  # noqa: S606
