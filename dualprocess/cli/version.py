"""``dualprocess version`` and ``dualprocess --version``."""

from __future__ import annotations

from importlib.metadata import version as installed
from typing import Annotated

import typer

from dualprocess.cli.session import ApiKey, Json, Url, connected, tell, tell_json
from dualprocess.errors import ApiError, ConnectionFailed, NotFound
from dualprocess.protocol import DEFAULT_URL


def register(app: typer.Typer) -> None:
    app.callback()(_options)
    app.command()(version)


def version(url: Url = DEFAULT_URL, api_key: ApiKey = None, json: Json = False) -> None:
    """Show the version of this client, and of the service if it can be reached."""
    service, fault = None, None
    with connected(url, api_key) as client:
        try:
            service = client.version()
        except NotFound:
            fault = "it is too old to tell its version"
        except (ApiError, ConnectionFailed) as error:
            fault = str(error)
    if json:
        tell_json({"client": installed("dualprocess"), "service": service, "error": fault})
        return
    tell(f"client:  {installed('dualprocess')}")
    tell(f"service: {service}" if service else f"service: unknown: {fault}")


def _print_and_end(wanted: bool) -> None:
    if wanted:
        tell(f"dualprocess {installed('dualprocess')}")
        raise typer.Exit


def _options(
    _: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_and_end,
            is_eager=True,
            help="Print the version of this client.",
        ),
    ] = False,
) -> None: ...
