"""``dualprocess doctor``: says what is wrong here, and what to do."""

from __future__ import annotations

import os
import sys

import typer

from dualprocess.cli.up import need_services

#: All options are for the module that does the work, also ``--help``.
_PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def register(app: typer.Typer) -> None:
    app.command(context_settings=_PASSED_ON)(doctor)


def doctor(context: typer.Context) -> None:
    """Check Redis, clock, stores, endpoints, TLS, presets, disk and GPUs; say what to do.

    `dualprocess doctor --help` lists its options. The exit code is 1 if it finds a problem, else 0.
    """
    need_services()
    command = [sys.executable, "-m", "services.orchestrator.doctor"]
    os.execv(sys.executable, [*command, *context.args])  # noqa: S606
