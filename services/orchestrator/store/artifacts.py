"""The files of jobs, in one object store: a folder by default, S3 in production."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import re
import shutil
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import from_url

from dualprocess.schemas import Artifact
from services.orchestrator.store.checkpoints import StoredCheckpoint

log = logging.getLogger(__name__)

#: Allowed names of artifacts, which are never paths.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")

#: The LoRA of an optimise job, as diffusers calls it.
LORA_FILE = "pytorch_lora_weights.safetensors"
#: The LoRA that came with a job's spec, to begin with.
START_FILE = "start.safetensors"
#: The picture of a job of questions, answers or expansion.
IMAGE_FILE = "image.png"

MEDIA_TYPES = {
    ".json": "application/json",
    ".jsonl": "application/jsonl",
    ".png": "image/png",
    ".safetensors": "application/octet-stream",
}


class StoreUnavailable(Exception):
    """The store can't do this now: it is full, read-only or away. The message says which."""


class StoreRefused(ValueError):
    """There can be no store at this address. The message says why, and never repeats the
    address."""


class ArtifactStore:
    """``url`` is ``file:///folder``, made if it is missing, or ``s3://bucket/prefix``.

    Raises ``StoreRefused``.
    """

    def __init__(self, url: str) -> None:
        self._folder: Path | None = None
        try:
            if urlsplit(url).scheme == "file":
                self._folder = Path(unquote(urlsplit(url).path))
                self._folder.mkdir(parents=True, exist_ok=True)
            self._store: Any = from_url(url)
        except OSError as error:
            raise StoreRefused(f"can't be the folder ({error.strerror}); choose another") from error
        except (BaseError, ValueError):
            # Without the cause: the unreadable part may be a secret.
            raise StoreRefused("must be file:///folder or s3://bucket/prefix") from None

    async def put(self, job_id: str, token: str, name: str, data: bytes) -> tuple[Artifact, str]:
        """Stores a file; what it is, and where. Raises ``StoreUnavailable``.

        Each claim has a place of its own: a worker that lost its lease can't overwrite what the
        job's next owner stored. Raises ``ValueError`` for a name that is not one.
        """
        if not NAME.fullmatch(name):
            raise ValueError(f"{name!r} can't be the name of an artifact")
        path = f"jobs/{job_id}/{token}/{name}"
        await self._put(path, data)
        artifact = Artifact(
            name=name,
            media_type=MEDIA_TYPES.get(Path(name).suffix, "application/octet-stream"),
            bytes=len(data),
            sha256=await _sha256(data),
        )
        return artifact, path

    async def put_checkpoint(
        self, job_id: str, token: str, step: int, data: bytes
    ) -> StoredCheckpoint:
        """Stores a checkpoint completely or not at all: in a folder it is written under another
        name and renamed, and S3 shows an object only once it is complete. Raises
        ``StoreUnavailable``."""
        path = f"jobs/{job_id}/{token}/checkpoints/{step:06d}.safetensors"
        await self._put(path, data)
        return StoredCheckpoint(step=step, path=path, sha256=await _sha256(data))

    async def read_checkpoint(self, stored: StoredCheckpoint) -> bytes | None:
        """The file; ``None`` if it is not the one that was stored. Raises ``StoreUnavailable``."""
        try:
            data = await self.read(stored.path)
        except FileNotFoundError:
            return None
        return data if await _sha256(data) == stored.sha256 else None

    async def read(self, path: str) -> bytes:
        """A whole file. Raises ``FileNotFoundError`` and ``StoreUnavailable``."""
        with _unavailable():
            found = await obstore.get_async(self._store, path)
            return bytes(await found.bytes_async())

    async def delete(self, paths: Sequence[str]) -> None:
        """Those of these files that exist. Raises ``StoreUnavailable``."""
        with _unavailable():
            for path in paths:
                with contextlib.suppress(FileNotFoundError):
                    await obstore.delete_async(self._store, path)

    async def erase(self, job_id: str) -> None:
        """Deletes everything of a job, whether Redis knows it or not. Raises
        ``StoreUnavailable``."""
        with _unavailable():
            listed = obstore.list(self._store, prefix=f"jobs/{job_id}")
            paths = [file["path"] async for files in listed for file in files]
        await self.delete(paths)
        if self._folder is not None:
            # Removes empty folders, and files of a process that died while writing.
            await asyncio.to_thread(shutil.rmtree, self._folder / "jobs" / job_id, True)

    async def _put(self, path: str, data: bytes) -> None:
        with _unavailable():
            await obstore.put_async(self._store, path, data)

    async def open(self, path: str, begin: int, end: int) -> AsyncIterator[bytes]:
        """Bytes ``begin`` to ``end`` (exclusive) of a file that is there.

        Raises ``FileNotFoundError`` and ``StoreUnavailable``, the latter while it is read, too.
        """
        with _unavailable():
            if begin == end:
                await obstore.head_async(self._store, path)
                return _chunks(None)
            found = await obstore.get_async(self._store, path, options={"range": (begin, end)})
            return _chunks(found)


async def _chunks(found: Any) -> AsyncIterator[bytes]:
    if found is not None:
        with _unavailable():
            async for chunk in found.stream():
                yield bytes(chunk)


@contextlib.contextmanager
def _unavailable() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except (BaseError, OSError) as error:
        log.warning("the artifact store: %s", error)
        # The reason comes last in the message; before it are paths of the server, after it a dump.
        reason = str(error).partition("\n")[0].rpartition(": ")[2]
        raise StoreUnavailable(reason or type(error).__name__) from error


async def _sha256(data: bytes) -> str:
    return (await asyncio.to_thread(hashlib.sha256, data)).hexdigest()
