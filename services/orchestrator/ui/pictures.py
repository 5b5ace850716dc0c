"""Pictures of jobs, as the page shows them: read through the REST API, kept small."""

from __future__ import annotations

import asyncio
import base64
import io
from collections import OrderedDict
from collections.abc import Sequence

from PIL import Image

from dualprocess import AsyncClient
from dualprocess.schemas import Artifact, Job

_THUMBNAIL_SIDE = 256
_SHOWN_SIDE = 768
#: Small pictures, by what they were made of: only who can read a job knows its files' hashes.
_KEPT: OrderedDict[tuple[str, int, int], tuple[str, ...]] = OrderedDict()
_KEPT_COUNT = 512


async def shown(client: AsyncClient, job: Job, names: Sequence[str]) -> list[str]:
    """The job's files of these names as data: URLs; those that there are."""
    return await _all(client, job, names, _SHOWN_SIDE)


async def thumbnails(client: AsyncClient, job: Job, names: Sequence[str]) -> list[str]:
    return await _all(client, job, names, _THUMBNAIL_SIDE)


async def halves(
    client: AsyncClient, job_id: str, artifact: Artifact, *, small: bool = False
) -> tuple[str, str]:
    """A preview's base (left) and LoRA (right); ``small``: as thumbnails."""
    side = _THUMBNAIL_SIDE if small else _SHOWN_SIDE
    base, lora = await _parts(client, job_id, artifact, side, 2)
    return base, lora


async def _all(client: AsyncClient, job: Job, names: Sequence[str], side: int) -> list[str]:
    files = {artifact.name: artifact for artifact in job.artifacts}
    found = [files[name] for name in names if name in files]
    each = await asyncio.gather(*(_parts(client, job.id, file, side, 1) for file in found))
    return [picture for (picture,) in each]


async def _parts(
    client: AsyncClient, job_id: str, file: Artifact, side: int, count: int
) -> tuple[str, ...]:
    """So many parts of equal width, each within ``side`` pixels."""
    key = file.sha256, side, count
    if key not in _KEPT:
        data = await client.read_artifact(job_id, file.name)
        _KEPT[key] = await asyncio.to_thread(_split, data, side, count)
        if len(_KEPT) > _KEPT_COUNT:
            _KEPT.popitem(last=False)
    return _KEPT[key]


def _split(data: bytes, side: int, count: int) -> tuple[str, ...]:
    with Image.open(io.BytesIO(data)) as image:
        if count == 1 and max(image.size) <= side:
            return (_url(data, "png"),)
        width, height = image.width // count, image.height
        parts = [image.crop((at * width, 0, (at + 1) * width, height)) for at in range(count)]
    for part in parts:
        part.thumbnail((side, side))
    return tuple(_encoded(part) for part in parts)


def _encoded(image: Image.Image) -> str:
    buffer = io.BytesIO()
    # Large pictures are for looking at here; the files themselves are a click away.
    kind, options = ("png", {}) if max(image.size) <= 256 else ("webp", {"quality": 90})
    image.convert("RGB").save(buffer, kind, **options)
    return _url(buffer.getvalue(), kind)


def _url(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
