"""``python -m services.orchestrator.keys``, which ``dualprocess keys`` runs: API keys.

It writes to Redis itself: whoever may do that runs the service, and the first key needs no other.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from pydantic import TypeAdapter
from redis.exceptions import RedisError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dualprocess import printable
from dualprocess.command_group import CommandGroup
from services.orchestrator import where
from services.orchestrator.settings import KeySettings
from services.orchestrator.store.keys import ApiKey, ApiKeys, Scope, id_of
from services.orchestrator.store.quotas import Quotas
from services.orchestrator.store.redis import connect

_KEYS = TypeAdapter(list[ApiKey])

_BAD_INPUT = 2
_UNREACHABLE = 3

_WHERE = (
    "For the keys of a stack that `dualprocess up --data DIR` started, use `dualprocess keys "
    "--data DIR …`. For another service, name its Redis with --redis-url."
)

app = typer.Typer(
    cls=CommandGroup,
    help="Make, list and revoke API keys.",
    epilog=_WHERE,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

RedisUrl = Annotated[
    str | None,
    typer.Option(
        "--redis-url",
        help="Address of the service's Redis. Without it: the Redis of the stack in "
        "`dualprocess keys --data DIR`, then DUALPROCESS_REDIS_URL or REDIS_URL, then the stack in "
        "./data.",
    ),
]

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs on standard output.")]


@app.callback()
def of(
    context: typer.Context,
    data: Annotated[
        Path | None,
        typer.Option(help="Data folder of the `dualprocess up` whose keys are meant: ./data."),
    ] = None,
) -> None:
    context.obj = data


@app.command(epilog=_WHERE)
def create(
    context: typer.Context,
    name: Annotated[str, typer.Option(help="Its name in the list, like its holder's.")],
    scope: Annotated[
        list[Scope],
        typer.Option(help="What it allows; give it once for each. admin includes the others."),
    ],
    queued: Annotated[
        int | None, typer.Option(min=1, help="Jobs that may be queued at once.")
    ] = None,
    running: Annotated[int | None, typer.Option(min=1, help="Jobs that may run at once.")] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Optimiser steps that one job may have.")
    ] = None,
    body_bytes: Annotated[
        int | None, typer.Option(min=1, help="Bytes that one request may have.")
    ] = None,
    work: Annotated[
        int | None,
        typer.Option(min=1, help="Work that all unfinished jobs may have together."),
    ] = None,
    redis_url: RedisUrl = None,
    json: Json = False,
) -> None:
    """Make a key, and show it this once. Quotas that are left out come from DUALPROCESS_QUOTA_…."""
    settings = KeySettings.from_environment()
    quotas = Quotas(
        queued=queued or settings.quota_queued,
        running=running or settings.quota_running,
        steps=steps or settings.quota_steps,
        body_bytes=body_bytes or settings.quota_body_bytes,
        work=work or settings.quota_work,
    )

    async def make() -> str:
        async with _keys(context.obj, redis_url) as keys:
            return await keys.create(name, set(scope), quotas)

    key = asyncio.run(make())
    typer.echo(printable.as_json({"id": id_of(key), "key": key}) if json else key)
    typer.echo("Keep it: only its hash is stored, and nothing can show it again.", err=True)


@app.command("list", epilog=_WHERE)
def list_keys(context: typer.Context, redis_url: RedisUrl = None, json: Json = False) -> None:
    """Every key that was ever made, without its secret."""

    async def read() -> list[ApiKey]:
        async with _keys(context.obj, redis_url) as keys:
            return await keys.list()

    listed = asyncio.run(read())
    if json:
        typer.echo(printable.as_json(_KEYS.dump_python(listed, mode="json")))
        return
    table = Table("id", "name", "scopes", *Quotas.model_fields, "made", "revoked")
    for key in listed:
        table.add_row(
            key.id,
            # As Text, so that a name is not read as markup.
            Text(printable.line(key.name)),
            " ".join(sorted(key.scopes)),
            # A key that is older than a quota has no limit for it.
            *["none" if limit is None else f"{limit:,}" for _, limit in key.quotas],
            f"{key.created_at:%Y-%m-%d %H:%M}",
            f"{key.revoked_at:%Y-%m-%d %H:%M}" if key.revoked_at else "",
        )
    Console(width=None if sys.stdout.isatty() else 200).print(table)


@app.command(epilog=_WHERE)
def revoke(
    context: typer.Context,
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The key's id, as `list` shows it.")],
    redis_url: RedisUrl = None,
    json: Json = False,
) -> None:
    """Revoke a key: from now on it is not accepted. Its jobs go on."""

    async def take() -> bool:
        async with _keys(context.obj, redis_url) as keys:
            return await keys.revoke(key_id)

    if not asyncio.run(take()):
        _fail(
            f"ID: there is no key {key_id}; `dualprocess keys list` shows all keys",
            _BAD_INPUT,
        )
    if json:
        typer.echo(printable.as_json({"id": key_id, "revoked": True}))
    else:
        typer.echo(f"key {printable.line(key_id)} is revoked")


@contextlib.asynccontextmanager
async def _keys(data: Path | None, redis_url: str | None) -> AsyncIterator[ApiKeys]:
    try:
        place = await asyncio.to_thread(where.redis, data, redis_url, "keys")
    except where.NoRedis as error:
        _fail(str(error), _BAD_INPUT)
    redis = connect(place.url, retries=1)
    try:
        yield ApiKeys(redis)
    except RedisError as error:
        _fail(f"{place.name}: Redis does not answer ({error}); {place.remedy}", _UNREACHABLE)
    finally:
        await redis.aclose()


def _fail(message: str, code: int) -> NoReturn:
    typer.echo(printable.lines(message), err=True)
    raise typer.Exit(code)


if __name__ == "__main__":
    printable.replace_what_cannot_be_encoded()
    app(prog_name="dualprocess keys")
