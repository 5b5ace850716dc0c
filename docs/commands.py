"""The command line's own help, as Markdown."""

from __future__ import annotations

import typer
from typer.cli import get_docs_for_click

from dualprocess.cli import app


def commands() -> str:
    """Each command with what it takes, in the order of `dualprocess --help`."""
    group = typer.main.get_group(app)
    context = typer.Context(group, info_name="dualprocess")
    return "\n".join(
        get_docs_for_click(obj=command, ctx=context, name=name, indent=1, call_prefix="dualprocess")
        for name, command in group.commands.items()
    )
