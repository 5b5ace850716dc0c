"""``dualprocess doctor``: what is wrong here, and what to do."""

from __future__ import annotations

import os
import sys

import typer

from dualprocess.cli.up import need_services

#: Everything is for the module that does it, ``--help`` as well.
_PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def register(app: typer.Typer) -> None:
    app.command(context_settings=_PASSED_ON)(doctor)


def doctor(context: typer.Context) -> None:
    """Look at Redis, clock, stores, endpoints, TLS, presets, disk and GPUs; say what to do.

    --help says what can be named. It ends with 1 if something is a problem, with 0 otherwise.
    """
    need_services()
    command = [sys.executable, "-m", "services.orchestrator.doctor"]
    os.execv(sys.executable, [*command, *context.args])  # noqa: S606
