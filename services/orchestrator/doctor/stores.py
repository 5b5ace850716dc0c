"""Redis with its clock, its workers, and the artifact store with its disk."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from redis.exceptions import RedisError

from services.common.redis_state import first_look
from services.orchestrator.doctor.finding import Finding, fine, problem, warning
from services.orchestrator.store.artifacts import ArtifactStore, StoreRefused, StoreUnavailable
from services.orchestrator.store.redis import connect
from services.orchestrator.store.workers import Workers
from services.orchestrator.where import NoRedis, Place, redis

#: Free space in a folder: a job may leave a gigabyte of LoRAs and checkpoints.
_LITTLE = 20 * 2**30
_NONE = 2 * 2**30
_REMEDY = "repair it, or name another with --artifacts or DUALPROCESS_ARTIFACTS"


def of_redis(data: Path | None, redis_url: str | None) -> tuple[Place | None, list[Finding]]:
    """Where Redis is, if it lets this process in, and the findings."""
    try:
        place = redis(data, redis_url, "doctor")
    except NoRedis as error:
        return None, [problem("redis", str(error), "as it says")]
    seen = first_look(place.url)
    if seen is None and not place.is_named:
        said = "no address is given, and no stack runs here"
        return None, [warning("redis", said, "`dualprocess up` starts its own; " + place.remedy)]
    if seen is None:
        return None, [problem("redis", f"{place.name}: Redis does not answer", place.remedy)]
    told = [fine("redis", f"version {seen.info.get('redis_version', 'unknown')} ({place.name})")]
    if seen.refusal:
        told = [problem("redis", seen.refusal, "as it says")]
    for finding in seen.findings:
        # The last part of its sentence says what to do.
        said, *remedy = re.split(r"[:;] (?=[^:;]*$)", finding)
        what = "clock" if "clock" in said else "redis"
        told.append(problem(what, said, *remedy or ["as it says"]))
    if not any(finding.what == "clock" for finding in told):
        ahead = seen.seconds_ahead
        told.append(fine("clock", f"Redis's clock and this machine's differ by {abs(ahead):.1f} s"))
    return place, told


async def of_workers(place: Place) -> Finding:
    client = connect(place.url, retries=1)
    try:
        live = await Workers(client).live()
    except RedisError as error:
        return problem("workers", f"Redis can't list them: {error}", place.remedy)
    finally:
        await client.aclose()
    if not live:
        return warning(
            "workers",
            "no worker runs, so jobs wait",
            "start one, or `dualprocess up`; before the first start this is fine",
        )
    served = ", ".join(sorted(f"{one.generator or '?'} with {'+'.join(one.vlms)}" for one in live))
    return fine("workers", f"{len(live)}: {served}")


async def of_artifacts(url: str) -> list[Finding]:
    return [await _try(url), *await asyncio.to_thread(lambda: list(_disk(url)))]


async def _try(url: str) -> Finding:
    """Writes a small file, reads it, and deletes it. Makes no folder for the store."""
    folder = _folder(url)
    if folder is not None and not folder.exists():
        there = _existing(folder)
        if os.access(there, os.W_OK):
            return fine("artifacts", f"{folder} is made when the service starts")
        return problem("artifacts", f"{folder} can't be made in {there}", _REMEDY)
    probe, data = f"doctor-{secrets.token_hex(8)}", secrets.token_bytes(32)
    path = f"jobs/{probe}/probe"
    try:
        store = ArtifactStore(url)
        await store.write(path, data)
        same = await store.read(path) == data
        await store.erase(probe)
    except StoreRefused as error:
        return problem("artifacts", f"the address {error}", _REMEDY)
    except (StoreUnavailable, FileNotFoundError) as error:
        return problem("artifacts", f"{_shown(url)} takes no files: {error}", _REMEDY)
    if not same:
        return problem("artifacts", f"{_shown(url)} returns other bytes than were written", _REMEDY)
    return fine("artifacts", f"{_shown(url)} takes files and returns them")


def _disk(url: str) -> Iterator[Finding]:
    folder = _folder(url)
    if folder is not None:
        yield of_disk(folder, "for artifacts", 0)


def _folder(url: str) -> Path | None:
    parts = urlsplit(url)
    return Path(unquote(parts.path)) if parts.scheme == "file" else None


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())


def of_disk(folder: Path, whose: str, needed: int) -> Finding:
    """The free space where ``folder`` is, or will be, after ``needed`` bytes are written."""
    free = shutil.disk_usage(_existing(folder)).free
    said = f"{free / 2**30:.0f} GiB are free {whose}, in {folder}"
    if free < needed + _NONE:
        what = f", and {needed / 2**30:.0f} GiB are still to be downloaded" if needed else ""
        return problem("disk", said + what, "free some space, or use another disk")
    if free < needed + _LITTLE:
        return warning("disk", said, "free some space before it is full, or lower --keep-days")
    return fine("disk", said)


def _shown(url: str) -> str:
    """Without the secrets that an address may have."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
