"""``dualprocess fit``: which cards hold a generator and a VLM."""

from __future__ import annotations

import os
import sys

import typer

from dualprocess.cli.up import need_services

#: All options are for the module that does the work, also ``--help``.
_PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def register(app: typer.Typer) -> None:
    app.command(context_settings=_PASSED_ON)(fit)


def fit(context: typer.Context) -> None:
    """Compute which cards hold GENERATOR and VLM, and with which settings; no GPU is needed.

    `dualprocess fit flux-schnell idefics2 --questions 5 --size 1024`; `dualprocess fit --help`
    lists its options.
    """
    need_services()
    command = [sys.executable, "-m", "services.local.fit"]
    os.execv(sys.executable, [*command, *context.args])  # noqa: S606
