"""Files that jobs leave, in one object store: a folder by default, S3 in production."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import obstore
from obstore.store import from_url

from dualprocess.schemas import Artifact

#: What an artifact may be called: never a path.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")

#: The LoRA of an optimise job, as diffusers calls it.
LORA_FILE = "pytorch_lora_weights.safetensors"
#: The LoRA that came with a job's spec, to begin with.
START_FILE = "start.safetensors"

MEDIA_TYPES = {
    ".json": "application/json",
    ".jsonl": "application/jsonl",
    ".png": "image/png",
    ".safetensors": "application/octet-stream",
}


class ArtifactStore:
    """``url`` is ``file:///folder``, made if it is missing, or ``s3://bucket/prefix``."""

    def __init__(self, url: str) -> None:
        if urlsplit(url).scheme == "file":
            Path(urlsplit(url).path).mkdir(parents=True, exist_ok=True)
        self._store: Any = from_url(url)

    async def put(self, job_id: str, token: int, name: str, data: bytes) -> tuple[Artifact, str]:
        """Stores a file; what it is, and where.

        Each claim has a place of its own: a worker that lost its lease can't overwrite what the
        job's next owner stored. Raises ``ValueError`` for a name that is not one.
        """
        if not NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name for an artifact")
        path = f"jobs/{job_id}/{token}/{name}"
        await obstore.put_async(self._store, path, data)
        artifact = Artifact(
            name=name,
            media_type=MEDIA_TYPES.get(Path(name).suffix, "application/octet-stream"),
            bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
        )
        return artifact, path

    async def read(self, path: str) -> bytes:
        """A whole file. Raises ``FileNotFoundError``."""
        found = await obstore.get_async(self._store, path)
        return bytes(await found.bytes_async())

    async def delete(self, paths: Sequence[str]) -> None:
        """Those of these files that there are."""
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                await obstore.delete_async(self._store, path)

    async def stream(self, path: str, begin: int, end: int) -> AsyncIterator[bytes]:
        """Bytes ``begin`` to ``end`` (exclusive). Raises ``FileNotFoundError`` at once."""
        if begin == end:
            return
        found = await obstore.get_async(self._store, path, options={"range": (begin, end)})
        async for chunk in found.stream():
            yield bytes(chunk)
