"""Pictures of jobs for the page. They are read through the REST API, made small, and kept."""

from __future__ import annotations

import asyncio
import base64
import io
from collections import OrderedDict
from collections.abc import Sequence

from PIL import Image

from dualprocess import AsyncClient
from dualprocess.schemas import Artifact, Job, ResolvedImagesSpec

_THUMBNAIL_SIDE = 256
_SHOWN_SIDE = 768
#: Small pictures by the hash of their file. Only someone who can read the job knows the hash.
_KEPT: OrderedDict[tuple[str, int, int], tuple[str, ...]] = OrderedDict()
_KEPT_COUNT = 512


def seeds(job: Job) -> list[int]:
    """The seeds of an images job's pictures: in the order of the request, or if only the best were
    kept, the best first."""
    assert isinstance(job.spec, ResolvedImagesSpec)
    if job.spec.keep is None:
        return job.spec.seeds
    return [one.seed for one in job.scores.images]


async def shown(client: AsyncClient, job: Job, names: Sequence[str]) -> list[str]:
    """Those of the job's files with these names that exist, as data: URLs."""
    return await _all(client, job, names, _SHOWN_SIDE)


async def thumbnails(client: AsyncClient, job: Job, names: Sequence[str]) -> list[str]:
    return await _all(client, job, names, _THUMBNAIL_SIDE)


async def halves(
    client: AsyncClient, job_id: str, artifact: Artifact, *, small: bool = False
) -> tuple[str, str]:
    """The two halves of a preview: base (left) and LoRA (right). ``small`` makes thumbnails."""
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
    """Splits a picture into parts of equal width; none has a side above ``side`` pixels."""
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
    # Large pictures are compressed for viewing; a click downloads the real file.
    kind, options = ("png", {}) if max(image.size) <= 256 else ("webp", {"quality": 90})
    image.convert("RGB").save(buffer, kind, **options)
    return _url(buffer.getvalue(), kind)


def _url(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
