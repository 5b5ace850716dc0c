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
    host: Annotated[str | None, typer.Option(help="Where the REST API listens: 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(help="Of the REST API: 8000.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Everything it keeps, for you alone: ./data.")
    ] = None,
    generator: Annotated[
        str | None, typer.Option(help="Preset of the generator: tiny-flux.")
    ] = None,
    vlm: Annotated[str | None, typer.Option(help="Preset of the VLM: tiny-idefics2.")] = None,
    models: Annotated[
        str | None, typer.Option(help="Several generators and VLMs: tiny-flux,idefics2,qwen3-vl.")
    ] = None,
    slots: Annotated[int | None, typer.Option(help="Jobs at once on a generator: 2.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, …, or auto.")] = None,
    load_seconds: Annotated[
        float | None, typer.Option(help="A model may take so long to load: 3600.")
    ] = None,
    auth: Annotated[
        bool | None,
        typer.Option(help="Ask for API keys: `dualprocess keys --data DIR` makes them."),
    ] = None,
    insecure: Annotated[
        bool | None, typer.Option("--insecure", help="Listen beyond loopback without keys.")
    ] = None,
    ui: Annotated[
        bool | None, typer.Option(help="The web page at /ui; as a rule where [ui] is installed.")
    ] = None,
    metrics: Annotated[
        bool | None,
        typer.Option("--metrics", help="Metrics of every process, for Prometheus."),
    ] = None,
    quiet: Annotated[bool | None, typer.Option("--quiet", help="Logs go to files only.")] = None,
    presets: Annotated[Path | None, typer.Option(help="Directory of presets.")] = None,
    log_level: Annotated[
        str | None, typer.Option(help="debug, info, warning or error: this and worse.")
    ] = None,
    log_format: Annotated[
        str | None, typer.Option(help="text for people, or json: an object a line.")
    ] = None,
) -> None:
    """Start Redis, VLMs, generators, workers and API here; Ctrl-C stops them all.

    What is left out comes from DUALPROCESS_PORT and the like, else it is the default.
    """
    need_services()
    command = [sys.executable, "-m", "services.local"]
    values = {
        "host": host,
        "port": port,
        "data": data,
        "generator": generator,
        "vlm": vlm,
        "models": models,
        "slots": slots,
        "device": device,
        "load-seconds": load_seconds,
        "presets": presets,
        "log-level": log_level,
        "log-format": log_format,
    }
    command += [f"--{name}={value}" for name, value in values.items() if value is not None]
    switches = {
        "auth": auth,
        "insecure": insecure,
        "ui": ui,
        "metrics": metrics,
        "quiet": quiet,
    }
    command += [
        f"--{name}" if on else f"--no-{name}" for name, on in switches.items() if on is not None
    ]
    # This process becomes the supervisor: signals reach it, and nobody is in between.
    os.execv(sys.executable, command)  # noqa: S606


def need_services() -> None:
    """Ends the command where only the client is installed."""
    if find_spec("services") is None:
        fail("the services are not installed here: pip install 'dualprocess[dev]'", BAD_INPUT)
