"""``python -m services.orchestrator.backup save|restore FOLDER``: what ``dualprocess backup`` and
``dualprocess restore`` run."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from redis.exceptions import RedisError, WatchError

from dualprocess import printable
from dualprocess.command_group import CommandGroup
from services.orchestrator import where
from services.orchestrator.backup.folder import BackupFolder, FolderRefused, Manifest
from services.orchestrator.backup.restore import RestoreRefused
from services.orchestrator.backup.restore import restore as restore_all
from services.orchestrator.backup.save import save as save_all
from services.orchestrator.settings import StoreSettings
from services.orchestrator.store.artifacts import ArtifactStore, StoreRefused, StoreUnavailable
from services.orchestrator.store.redis import Client, connect

_FAILED = 1
_BAD_INPUT = 2
_UNREACHABLE = 3
#: How long one answer of Redis may take: all records come as one.
_SECONDS = 600.0

app = typer.Typer(
    cls=CommandGroup,
    help="Back up Redis and the artifact store together, and restore them.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of the backup.")]
Data = Annotated[
    Path | None,
    typer.Option(help="Data folder of `dualprocess up`, which has both stores: ./data."),
]
RedisUrl = Annotated[
    str | None,
    typer.Option(
        "--redis-url",
        help="Address of the service's Redis. Without it: the Redis of --data, then "
        "DUALPROCESS_REDIS_URL or REDIS_URL, then the Redis of ./data.",
    ),
]
Artifacts = Annotated[
    str | None,
    typer.Option(
        help="The service's artifact store: file:///folder or s3://bucket/prefix. Without it: "
        "the store of --data, then DUALPROCESS_ARTIFACTS."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output, for programs.")]


@app.command()
def save(
    folder: Folder,
    data: Data = None,
    redis_url: RedisUrl = None,
    artifacts: Artifacts = None,
    json: Json = False,
) -> None:
    """Copy all jobs, keys and files into FOLDER, which must be empty or new. The service may run.

    All records are of one moment. Running jobs are saved with their checkpoints.
    """

    async def run() -> Manifest:
        async with _stores(data, redis_url, artifacts, "backup") as stores:
            copy = BackupFolder(folder)
            copy.make()
            return await save_all(stores.binary, stores.artifacts, copy)

    manifest = asyncio.run(run())
    _tell(manifest, f"backed up into {folder}", json)
    if manifest.missing:
        _fail(
            f"{len(manifest.missing)} files of jobs are missing in the artifact store, or changed: "
            + ", ".join(manifest.missing[:5])
            + (", …" if len(manifest.missing) > 5 else "")
            + f"; {folder}/backup.json lists them. The rest of the backup is complete",
            _FAILED,
        )


@app.command()
def restore(
    folder: Folder,
    data: Data = None,
    redis_url: RedisUrl = None,
    artifacts: Artifacts = None,
    json: Json = False,
) -> None:
    """Write the backup in FOLDER into a Redis without jobs, and into the artifact store.

    Queued jobs are queued again; running jobs go on from their checkpoints.
    """

    async def run() -> Manifest:
        async with _stores(data, redis_url, artifacts, "restore") as stores:
            return await restore_all(
                stores.redis, stores.binary, stores.artifacts, BackupFolder(folder)
            )

    _tell(asyncio.run(run()), f"restored from {folder}", json)


@dataclass(frozen=True)
class _Stores:
    redis: Client
    binary: Client
    artifacts: ArtifactStore


@contextlib.asynccontextmanager
async def _stores(
    data: Path | None, redis_url: str | None, artifacts: str | None, command: str
) -> AsyncIterator[_Stores]:
    try:
        place = await asyncio.to_thread(where.redis, data, redis_url, command)
        store = ArtifactStore(artifacts or _artifacts_of(place))
    except where.NoRedis as error:
        _fail(str(error), _BAD_INPUT)
    except StoreRefused as error:
        _fail(f"--artifacts: {error}", _BAD_INPUT)
    redis = connect(place.url, retries=1)
    binary = connect(place.url, retries=1, decodes=False, seconds=_SECONDS)
    try:
        yield _Stores(redis, binary, store)
    except FolderRefused as error:
        _fail(f"FOLDER: {error}", _BAD_INPUT)
    except RestoreRefused as error:
        _fail(f"{place.name}: {error}", _BAD_INPUT)
    except WatchError:
        _fail(f"{place.name}: this Redis was changed in the meantime; stop the API", _BAD_INPUT)
    except StoreUnavailable as error:
        _fail(f"--artifacts: the artifact store can't be used now: {error}", _UNREACHABLE)
    except RedisError as error:
        _fail(f"{place.name}: Redis does not answer ({error}); {place.remedy}", _UNREACHABLE)
    except OSError as error:
        _fail(f"FOLDER: can't be written ({error.strerror or error})", _BAD_INPUT)
    finally:
        await redis.aclose()
        await binary.aclose()


def _artifacts_of(place: where.Place) -> str:
    if place.folder is not None:
        return (place.folder / "artifacts").resolve().as_uri()
    return StoreSettings.from_environment().artifacts


def _tell(manifest: Manifest, what: str, json: bool) -> None:
    told = manifest.model_dump(mode="json", exclude={"files", "records_sha256", "version"})
    size = sum(file.bytes for file in manifest.files)
    if json:
        told |= {"files": len(manifest.files), "bytes": size}
        typer.echo(printable.as_json(told))
        return
    by_status = ", ".join(f"{count} {status}" for status, count in sorted(manifest.jobs.items()))
    typer.echo(
        printable.lines(
            f"{what}: {sum(manifest.jobs.values())} jobs ({by_status or 'none'}), "
            f"{manifest.api_keys} API keys, {len(manifest.files)} files of {size:,} bytes; "
            f"{manifest.records} records, of {manifest.made_at:%Y-%m-%d %H:%M:%S} UTC"
        )
    )


def _fail(message: str, code: int) -> NoReturn:
    typer.echo(printable.lines(message), err=True)
    raise typer.Exit(code)


if __name__ == "__main__":
    # Nobody else may read what it writes, also in the artifact store.
    os.umask(0o077)
    printable.replace_what_cannot_be_encoded()
    app(prog_name="dualprocess")
