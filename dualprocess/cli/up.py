"""``dualprocess up``: the whole service on this machine."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from dualprocess.cli.session import BAD_INPUT, fail


def register(app: typer.Typer) -> None:
    app.command()(up)


def up(
    port: Annotated[int, typer.Option(help="Of the REST API.")] = 8000,
    data: Annotated[Path, typer.Option(help="Everything it keeps.")] = Path("data"),
    generator: Annotated[str, typer.Option(help="Preset of the generator.")] = "tiny-flux",
    vlm: Annotated[str, typer.Option(help="Preset of the VLM.")] = "tiny-idefics2",
    slots: Annotated[int, typer.Option(help="Jobs at once on the generator.")] = 2,
    device: Annotated[str, typer.Option(help="cpu, cuda, …, or auto.")] = "auto",
    quiet: Annotated[bool, typer.Option("--quiet", help="Logs go to files only.")] = False,
) -> None:
    """Start Redis, VLM, generator, worker and API here; Ctrl-C stops them all."""
    if find_spec("services") is None:
        fail("the services are not installed here: pip install 'dualprocess[dev]'", BAD_INPUT)
    command = [sys.executable, "-m", "services.local"]
    command += [f"--port={port}", f"--data={data}", f"--generator={generator}", f"--vlm={vlm}"]
    command += [f"--slots={slots}", f"--device={device}"]
    if quiet:
        command.append("--quiet")
    # This process becomes the supervisor: signals reach it, and nobody is in between.
    os.execv(sys.executable, command)  # noqa: S606
