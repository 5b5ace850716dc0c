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
_KEPT: OrderedDict[tuple[str, int], str] = OrderedDict()
_KEPT_COUNT = 512


async def shown(client: AsyncClient, job: Job, names: Sequence[str]) -> list[str]:
    """The job's files of these names as data: URLs; those that there are."""
    return await _all(client, job, names, _SHOWN_SIDE)


async def thumbnails(client: AsyncClient, job: Job, names: Sequence[str]) -> list[str]:
    return await _all(client, job, names, _THUMBNAIL_SIDE)


async def halves(client: AsyncClient, job_id: str, artifact: Artifact) -> tuple[str, str]:
    """A preview's base (left) and LoRA (right)."""
    data = await client.read_artifact(job_id, artifact.name)
    return await asyncio.to_thread(_split, data)


async def _all(client: AsyncClient, job: Job, names: Sequence[str], side: int) -> list[str]:
    files = {artifact.name: artifact for artifact in job.artifacts}
    found = [files[name] for name in names if name in files]
    return await asyncio.gather(*(_one(client, job.id, file, side) for file in found))


async def _one(client: AsyncClient, job_id: str, file: Artifact, side: int) -> str:
    key = file.sha256, side
    if key not in _KEPT:
        data = await client.read_artifact(job_id, file.name)
        _KEPT[key] = await asyncio.to_thread(_within, data, side)
        if len(_KEPT) > _KEPT_COUNT:
            _KEPT.popitem(last=False)
    return _KEPT[key]


def _within(data: bytes, side: int) -> str:
    with Image.open(io.BytesIO(data)) as image:
        if max(image.size) <= side:
            return _url(data, "png")
        image.thumbnail((side, side))
        return _encoded(image)


def _split(data: bytes) -> tuple[str, str]:
    with Image.open(io.BytesIO(data)) as image:
        width, height = image.size
        parts = [image.crop((left, 0, left + width // 2, height)) for left in (0, width // 2)]
        for part in parts:
            part.thumbnail((_SHOWN_SIDE, _SHOWN_SIDE))
        base, lora = (_encoded(part) for part in parts)
    return base, lora


def _encoded(image: Image.Image) -> str:
    buffer = io.BytesIO()
    # Large pictures are for looking at here; the files themselves are a click away.
    kind, options = ("png", {}) if max(image.size) <= 256 else ("webp", {"quality": 90})
    image.convert("RGB").save(buffer, kind, **options)
    return _url(buffer.getvalue(), kind)


def _url(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
