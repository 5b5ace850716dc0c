"""What the shell offers after TAB: jobs and presets of the service. Nothing if the service does not
answer."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TypeVar

import httpx
import typer

from dualprocess import calls, printable
from dualprocess.connection import certificates, service_url, setting_up, transport
from dualprocess.errors import DualProcessError
from dualprocess.protocol import DEFAULT_URL, Call, headers

ResultT = TypeVar("ResultT")

#: Nobody waits longer for a completion.
_SECONDS = 2.0


def job_ids(context: typer.Context, incomplete: str) -> Iterator[tuple[str, str]]:
    """The newest jobs, each with its status and name."""
    call = calls.JobPages().next()
    page = _asked(context, call) if call else None
    for job in page.jobs if page else ():
        if job.id.startswith(incomplete):
            yield printable.line(job.id), printable.line(f"{job.status} {job.name or job.kind}")


def generators(context: typer.Context, incomplete: str) -> Iterator[tuple[str, str]]:
    listed = _asked(context, calls.models())
    for preset in listed.generators if listed else ():
        if preset.name.startswith(incomplete):
            yield printable.line(preset.name), printable.line(preset.model)


def vlms(context: typer.Context, incomplete: str) -> Iterator[tuple[str, str]]:
    listed = _asked(context, calls.models())
    for preset in listed.vlms if listed else ():
        if preset.name.startswith(incomplete):
            yield printable.line(preset.name), printable.line(preset.model)


def _asked(context: typer.Context, call: Call[ResultT]) -> ResultT | None:
    """One try."""
    url = context.params.get("url") or os.environ.get("DUALPROCESS_URL") or DEFAULT_URL
    try:
        address, carried = service_url(url), headers(context.params.get("api_key"))
        with setting_up():
            http = httpx.Client(
                base_url=address,
                headers=carried,
                timeout=_SECONDS,
                verify=certificates(address),
                transport=transport(address),
            )
        with http:
            return call.result(http.request(call.method, call.path, **call.options))
    except (httpx.HTTPError, httpx.InvalidURL, DualProcessError):
        return None
