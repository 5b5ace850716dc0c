"""``dualprocess models``: the models that a job can name."""

from __future__ import annotations

import typer
from rich.table import Table
from rich.text import Text

from dualprocess import printable
from dualprocess.cli.session import ApiKey, Json, Url, connected, print_json, stdout
from dualprocess.protocol import DEFAULT_URL


def register(app: typer.Typer) -> None:
    app.command()(models)


def models(url: Url = DEFAULT_URL, api_key: ApiKey = None, json: Json = False) -> None:
    """List generators and VLMs, and how many workers of each are running."""
    with connected(url, api_key) as client:
        listed = client.models()
    if json:
        print_json(listed)
        return
    rows: list[tuple[str, ...]] = [
        ("generator", generator.name, generator.model, str(generator.live_workers))
        for generator in listed.generators
    ]
    for vlm in listed.vlms:
        writes = "yes" if vlm.writes else "no"
        rows.append(("VLM", vlm.name, vlm.model, str(vlm.live_workers), writes))
    if listed.writer is not None:
        rows.append(("language model", "", listed.writer, "", "yes"))
    table = Table("kind", "name", "model", "live workers", "writes")
    for row in rows:
        # As text, so that brackets in a model's name are not read as markup.
        table.add_row(*map(Text, map(printable.line, row)))
    stdout.print(table)
