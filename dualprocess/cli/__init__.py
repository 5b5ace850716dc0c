"""The command line: ``dualprocess``."""

from __future__ import annotations

from typing import Any

import typer

from dualprocess.cli import (
    backup,
    batch,
    doctor,
    fit,
    images,
    jobs,
    keys,
    mcp,
    models,
    push,
    track,
    up,
    version,
    words,
)
from dualprocess.command_group import CommandGroup
from dualprocess.printable import replace_what_cannot_be_encoded


class _App(typer.Typer):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        replace_what_cannot_be_encoded()
        return super().__call__(*args, **kwargs)


app = _App(
    cls=CommandGroup,
    name="dualprocess",
    help="Teach an image generator with a VLM's answers.",
    epilog="Exit codes: 0 success; 1 a job failed or was cancelled; 2 bad input; 3 the service "
    "does not answer, or asks to try again later.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for module in (
    up,
    jobs,
    batch,
    images,
    words,
    track,
    push,
    models,
    mcp,
    keys,
    fit,
    backup,
    doctor,
    version,
):
    module.register(app)

__all__ = ["app"]
