"""The command line: ``dualprocess``."""

from __future__ import annotations

import typer

from dualprocess.cli import batch, images, jobs, keys, models, track, up

app = typer.Typer(
    name="dualprocess",
    help="Teach an image generator with a VLM's answers.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for module in (up, jobs, batch, images, track, models, keys):
    module.register(app)

__all__ = ["app"]
