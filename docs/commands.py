"""The command line's own help, as Markdown."""

from __future__ import annotations

from collections.abc import Iterator

import typer
from typer.cli import get_docs_for_click

from dualprocess.cli import app
from services.orchestrator import keys

#: The last command of `dualprocess`. It hands its arguments on to an app of the services.
_KEYS = "dualprocess keys"


def commands() -> str:
    """Each command with its options, in the order of `dualprocess --help`."""
    return "\n".join([*_sections(app, "dualprocess", 1), *_sections(keys.app, _KEYS, 2)])


def _sections(commands: typer.Typer, prefix: str, indent: int) -> Iterator[str]:
    group = typer.main.get_group(commands)
    context = typer.Context(group, info_name=prefix)
    for name, command in group.commands.items():
        yield get_docs_for_click(
            obj=command, ctx=context, name=name, indent=indent, call_prefix=prefix
        )
