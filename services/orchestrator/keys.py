"""``python -m services.orchestrator.keys``, which ``dualprocess keys`` runs: API keys.

It writes to Redis itself: whoever may do that runs the service, and the first key needs no other.
"""

from __future__ import annotations

import asyncio
import contextlib
import json as jsons
import sys
from collections.abc import AsyncIterator
from typing import Annotated, NoReturn

import typer
from pydantic import TypeAdapter
from redis.exceptions import RedisError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dualprocess import printable
from services.common.redis_address import checked_redis_url, redis_refusal
from services.orchestrator.settings import KeySettings
from services.orchestrator.store.keys import ApiKey, ApiKeys, Scope, id_of
from services.orchestrator.store.quotas import Quotas
from services.orchestrator.store.redis import connect

_KEYS = TypeAdapter(list[ApiKey])

_BAD_INPUT = 2
_UNREACHABLE = 3

app = typer.Typer(
    help="Make, list and revoke the API keys of the service whose Redis is at --redis-url.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

RedisUrl = Annotated[
    str | None,
    typer.Option("--redis-url", help="Else DUALPROCESS_REDIS_URL, REDIS_URL, or the local one."),
]


Json = Annotated[bool, typer.Option("--json", help="For programs: JSON on standard output.")]


@app.command()
def create(
    name: Annotated[str, typer.Option(help="Whose it is, for the list.")],
    scope: Annotated[list[Scope], typer.Option(help="Once for each; admin implies the others.")],
    queued: Annotated[int | None, typer.Option(min=1, help="Jobs that may wait.")] = None,
    running: Annotated[int | None, typer.Option(min=1, help="Jobs that run at once.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps of a job.")] = None,
    body_bytes: Annotated[int | None, typer.Option(min=1, help="Size of a request.")] = None,
    work: Annotated[
        int | None,
        typer.Option(min=1, help="Work of all jobs that have not ended."),
    ] = None,
    redis_url: RedisUrl = None,
    json: Json = False,
) -> None:
    """Make a key, and show it this once. Quotas left out come from DUALPROCESS_QUOTA_…."""
    settings = KeySettings.from_environment()
    quotas = Quotas(
        queued=queued or settings.quota_queued,
        running=running or settings.quota_running,
        steps=steps or settings.quota_steps,
        body_bytes=body_bytes or settings.quota_body_bytes,
        work=work or settings.quota_work,
    )

    async def make() -> str:
        async with _keys(redis_url) as keys:
            return await keys.create(name, set(scope), quotas)

    key = asyncio.run(make())
    typer.echo(jsons.dumps({"id": id_of(key), "key": key}, indent=2) if json else key)
    typer.echo("Keep it: only its hash is stored, and nothing can show it again.", err=True)


@app.command("list")
def list_keys(redis_url: RedisUrl = None, json: Json = False) -> None:
    """Every key that was ever made, without its secret."""

    async def read() -> list[ApiKey]:
        async with _keys(redis_url) as keys:
            return await keys.list()

    listed = asyncio.run(read())
    if json:
        typer.echo(_KEYS.dump_json(listed, indent=2).decode())
        return
    table = Table("id", "name", "scopes", *Quotas.model_fields, "made", "revoked")
    for key in listed:
        table.add_row(
            key.id,
            # Text: a name is no markup.
            Text(printable.line(key.name)),
            " ".join(sorted(key.scopes)),
            # A key from before there was a quota has no limit there.
            *["none" if limit is None else f"{limit:,}" for _, limit in key.quotas],
            f"{key.created_at:%Y-%m-%d %H:%M}",
            f"{key.revoked_at:%Y-%m-%d %H:%M}" if key.revoked_at else "",
        )
    Console(width=None if sys.stdout.isatty() else 200).print(table)


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="As `list` shows it.")],
    redis_url: RedisUrl = None,
    json: Json = False,
) -> None:
    """Take a key back: from now on it opens nothing. Its jobs go on."""

    async def take() -> bool:
        async with _keys(redis_url) as keys:
            return await keys.revoke(key_id)

    if not asyncio.run(take()):
        _fail(
            f"ID: there is no key {key_id}; `dualprocess keys list` shows those there are",
            _BAD_INPUT,
        )
    if json:
        typer.echo(jsons.dumps({"id": key_id, "revoked": True}, indent=2))
    else:
        typer.echo(f"key {key_id} opens nothing any more")


@contextlib.asynccontextmanager
async def _keys(redis_url: str | None) -> AsyncIterator[ApiKeys]:
    url = redis_url or KeySettings.from_environment().redis_url
    try:
        url = checked_redis_url(url)
    except ValueError as error:
        _fail(f"--redis-url: {error}", _BAD_INPUT)
    if refusal := await asyncio.to_thread(redis_refusal, url):
        _fail(f"--redis-url: {refusal}", _BAD_INPUT)
    redis = connect(url, retries=1)
    try:
        yield ApiKeys(redis)
    except RedisError as error:
        _fail(f"--redis-url: Redis does not answer ({error}); name the service's own", _UNREACHABLE)
    finally:
        await redis.aclose()


def _fail(message: str, code: int) -> NoReturn:
    typer.echo(printable.lines(message), err=True)
    raise typer.Exit(code)


if __name__ == "__main__":
    printable.replace_what_cannot_be_encoded()
    app(prog_name="dualprocess keys")
