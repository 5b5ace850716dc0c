"""``python -m services.orchestrator.doctor``, which ``dualprocess doctor`` runs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from pydantic import TypeAdapter, ValidationError

from dualprocess import printable
from dualprocess.command_group import CommandGroup
from services.common.addresses import Target
from services.common.credentials import OPEN, Credentials, CredentialsError
from services.orchestrator.doctor import endpoints, models, stores, tls
from services.orchestrator.doctor.finding import Finding, Level
from services.orchestrator.doctor.settings import DoctorSettings

_PROBLEM = 1
_BAD_INPUT = 2

_TARGETS: TypeAdapter[list[Target]] = TypeAdapter(list[Target])

app = typer.Typer(cls=CommandGroup, add_completion=False, pretty_exceptions_enable=False)


@app.command()
def doctor(
    data: Annotated[
        Path | None, typer.Option(help="Data folder of `dualprocess up`: ./data.")
    ] = None,
    redis_url: Annotated[
        str | None,
        typer.Option(
            "--redis-url",
            help="Address of Redis. Without it: the Redis of --data, then DUALPROCESS_REDIS_URL.",
        ),
    ] = None,
    artifacts: Annotated[
        str | None,
        typer.Option(
            help="Artifact store: file:///folder or s3://bucket/prefix. Without it: the store of "
            "--data, then DUALPROCESS_ARTIFACTS."
        ),
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="Address of the REST API, if it should be checked.")
    ] = None,
    endpoint: Annotated[
        list[str] | None,
        typer.Option(help="gRPC target of a generator or VLM; give it once for each."),
    ] = None,
    preset: Annotated[
        list[str] | None,
        typer.Option(help="Preset that this machine should serve; give it once for each."),
    ] = None,
    presets: Annotated[Path | None, typer.Option(help="Directory of presets.")] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print JSON on standard output, for programs.")
    ] = False,
) -> None:
    """Check Redis, clock, stores, endpoints, TLS, presets, disk and GPUs; say what to do."""
    settings = DoctorSettings.from_environment()
    try:
        targets = _TARGETS.validate_python(endpoint or settings.endpoints)
    except ValidationError as error:
        _fail(f"--endpoint: {error.errors()[0]['msg'].removeprefix('Value error, ')}")
    found = asyncio.run(
        _look(
            settings,
            data=data,
            redis_url=redis_url,
            artifacts=artifacts,
            url=url,
            targets=targets,
            names=preset or ([settings.preset] if settings.preset else []),
            presets=presets or settings.presets,
        )
    )
    if json:
        listed = [vars(finding) for finding in found]
        typer.echo(printable.as_json(listed))
    else:
        _print(found)
    if any(finding.level is Level.PROBLEM for finding in found):
        raise typer.Exit(_PROBLEM)


async def _look(
    settings: DoctorSettings,
    *,
    data: Path | None,
    redis_url: str | None,
    artifacts: str | None,
    url: str | None,
    targets: Sequence[str],
    names: Sequence[str],
    presets: Path,
) -> list[Finding]:
    place, found = await asyncio.to_thread(stores.of_redis, data, redis_url)
    if place is not None:
        found.append(await stores.of_workers(place))
    folder = place.folder if place is not None else data
    own = None if folder is None else (folder / "artifacts").resolve().as_uri()
    found += await stores.of_artifacts(artifacts or own or settings.artifacts)
    if url is not None:
        found += await endpoints.of_api(url)
    found += await asyncio.to_thread(tls.of_tls, settings)
    for target in targets:
        found += await endpoints.of_services(target, _credentials(settings))
    chosen, told = await asyncio.to_thread(models.of_presets, presets, names)
    found += told
    if names:
        found.append(await asyncio.to_thread(models.of_cache, chosen))
    found += await asyncio.to_thread(models.of_gpus, chosen, named=bool(names))
    return found


def _credentials(settings: DoctorSettings) -> Credentials:
    try:
        return settings.credentials()
    except CredentialsError:
        # Reported already. Without credentials it can still be seen whether anything answers.
        return OPEN


def _print(found: Sequence[Finding]) -> None:
    width = max(len(finding.what) for finding in found)
    for finding in found:
        typer.echo(printable.line(f"{finding.level:<8} {finding.what:<{width}}  {finding.said}"))
        if finding.remedy:
            typer.echo(printable.line(f"{'':<8} {'':<{width}}  → {finding.remedy}"))
    counts = [sum(finding.level is level for finding in found) for level in Level]
    typer.echo(f"\n{counts[2]} problems, {counts[1]} warnings, {counts[0]} fine")


def _fail(message: str) -> NoReturn:
    typer.echo(printable.lines(message), err=True)
    raise typer.Exit(_BAD_INPUT)


if __name__ == "__main__":
    printable.replace_what_cannot_be_encoded()
    app(prog_name="dualprocess doctor")
