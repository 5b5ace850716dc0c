"""The command line: ``dualprocess``."""

from __future__ import annotations

import typer

from dualprocess.cli import batch, images, jobs, keys, models, up, words

app = typer.Typer(
    name="dualprocess",
    help="Teach an image generator with a VLM's answers.",
    epilog="Exit codes: 0 it is done; 1 a job failed or was cancelled; 2 what was asked can't be; "
    "3 the service doesn't answer, or not now: try again later.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for module in (up, jobs, batch, images, words, models, keys):
    module.register(app)

__all__ = ["app"]
