"""``dualprocess up``: the whole service on this machine."""

from __future__ import annotations

import runpy
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from dualprocess.cli.session import BAD_INPUT, fail


def register(app: typer.Typer) -> None:
    app.command()(up)


def up(
    host: Annotated[
        str | None, typer.Option(help="Address on which the REST API listens: 127.0.0.1.")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port of the REST API: 8000.")] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder for everything that is kept, open to you alone: ./data."),
    ] = None,
    generator: Annotated[
        list[str] | None,
        typer.Option(
            help="Preset of the generator: tiny-flux. For several, give it once for each, or use "
            "commas; flux-schnell:6 is six of one preset."
        ),
    ] = None,
    vlm: Annotated[
        list[str] | None,
        typer.Option(
            help="Preset of the VLM: tiny-idefics2. Several as for --generator: idefics2:2. "
            "pixtral:1x2 is one that is spread over two GPUs."
        ),
    ] = None,
    teachers: Annotated[
        list[str] | None,
        typer.Option(
            help="Address of a teacher that somebody else started, whose preset has the family "
            "external: colour=127.0.0.1:50060."
        ),
    ] = None,
    models: Annotated[
        list[str] | None,
        typer.Option(help="Generators and VLMs in one list: flux-schnell:6,idefics2,qwen3-vl."),
    ] = None,
    gpus: Annotated[
        str | None,
        typer.Option(
            help="A GPU for each generator, then for each VLM, in turn: 0-7. By default all GPUs."
        ),
    ] = None,
    dry_run: Annotated[
        bool | None, typer.Option("--dry-run", help="Print the plan and start nothing.")
    ] = None,
    slots: Annotated[
        int | None, typer.Option(help="How many jobs a generator runs at once: 2.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, …, or auto.")] = None,
    load_seconds: Annotated[
        float | None, typer.Option(help="How many seconds a model may take to load: 3600.")
    ] = None,
    auth: Annotated[
        bool | None,
        typer.Option(help="Ask for API keys; `dualprocess keys --data DIR` makes them."),
    ] = None,
    insecure: Annotated[
        bool | None, typer.Option("--insecure", help="Let other machines use the API without keys.")
    ] = None,
    ui: Annotated[
        bool | None,
        typer.Option(help="Serve the web page at /ui; by default if [ui] is installed."),
    ] = None,
    metrics: Annotated[
        bool | None,
        typer.Option("--metrics", help="Show metrics of every process, for Prometheus."),
    ] = None,
    quiet: Annotated[bool | None, typer.Option("--quiet", help="Write logs to files only.")] = None,
    presets: Annotated[Path | None, typer.Option(help="Directory of presets.")] = None,
    log_level: Annotated[
        str | None,
        typer.Option(help="Log messages of this level and above: debug, info, warning or error."),
    ] = None,
    log_format: Annotated[
        str | None, typer.Option(help="text for people, or json, one object per line.")
    ] = None,
) -> None:
    """Start Redis, VLMs, generators, workers and API here; Ctrl-C stops them all.

    Several of each: `dualprocess up --generator flux-schnell:6 --vlm idefics2:2 --gpus 0-7`. Each
    generator and each VLM is a process with a GPU of its own. The plan is printed first.

    An option that is left out comes from its environment variable, like DUALPROCESS_PORT, or else
    is the default.
    """
    need_services()
    values = {
        "host": host,
        "port": port,
        "data": data,
        "generator": _listed(generator),
        "vlm": _listed(vlm),
        "teachers": _listed(teachers),
        "models": _listed(models),
        "gpus": gpus,
        "slots": slots,
        "device": device,
        "load-seconds": load_seconds,
        "presets": presets,
        "log-level": log_level,
        "log-format": log_format,
    }
    flags = [f"--{name}={value}" for name, value in values.items() if value is not None]
    switches = {
        "auth": auth,
        "insecure": insecure,
        "ui": ui,
        "metrics": metrics,
        "quiet": quiet,
        "dry-run": dry_run,
    }
    flags += [
        f"--{name}" if on else f"--no-{name}" for name, on in switches.items() if on is not None
    ]
    # This process is the supervisor, so that signals reach it directly, and that Python and the
    # client are loaded once.
    sys.argv[1:] = flags
    runpy.run_module("services.local", run_name="__main__", alter_sys=True)


def _listed(values: list[str] | None) -> str | None:
    return ",".join(values) if values else None


def need_services() -> None:
    """Ends the command where only the client is installed."""
    if find_spec("services") is None:
        fail("the services are not installed here: pip install 'dualprocess[dev]'", BAD_INPUT)
