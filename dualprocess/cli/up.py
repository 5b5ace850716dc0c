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
    host: Annotated[str, typer.Option(help="Where the REST API listens.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Of the REST API.")] = 8000,
    data: Annotated[Path, typer.Option(help="Everything it keeps.")] = Path("data"),
    generator: Annotated[str, typer.Option(help="Preset of the generator.")] = "tiny-flux",
    vlm: Annotated[str, typer.Option(help="Preset of the VLM.")] = "tiny-idefics2",
    models: Annotated[
        str, typer.Option(help="Several generators and VLMs: tiny-flux,idefics2,qwen3-vl.")
    ] = "",
    slots: Annotated[int, typer.Option(help="Jobs at once on a generator.")] = 2,
    device: Annotated[str, typer.Option(help="cpu, cuda, …, or auto.")] = "auto",
    auth: Annotated[bool, typer.Option(help="Ask for API keys; see `dualprocess keys`.")] = False,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Listen beyond loopback without keys.")
    ] = False,
    ui: Annotated[
        bool | None, typer.Option(help="The web page at /ui; as a rule where [ui] is installed.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Logs go to files only.")] = False,
) -> None:
    """Start Redis, VLMs, generators, workers and API here; Ctrl-C stops them all."""
    need_services()
    command = [sys.executable, "-m", "services.local"]
    command += [f"--host={host}", f"--port={port}"]
    command += [f"--data={data}", f"--generator={generator}", f"--vlm={vlm}"]
    command += [f"--slots={slots}", f"--device={device}"]
    if models:
        command.append(f"--models={models}")
    chosen = {"--auth": auth, "--insecure": insecure, "--quiet": quiet}
    command += [flag for flag, is_set in chosen.items() if is_set]
    if ui is not None:
        command.append("--ui" if ui else "--no-ui")
    # This process becomes the supervisor: signals reach it, and nobody is in between.
    os.execv(sys.executable, command)  # noqa: S606


def need_services() -> None:
    """Ends the command where only the client is installed."""
    if find_spec("services") is None:
        fail("the services are not installed here: pip install 'dualprocess[dev]'", BAD_INPUT)
