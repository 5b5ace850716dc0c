"""The files of jobs, in one object store: a folder by default, S3 in production."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import re
import shutil
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import from_url

from dualprocess.schemas import Artifact
from services.orchestrator.store.checkpoints import StoredCheckpoint
from services.orchestrator.store.store_faults import is_bucket_gone, reason

log = logging.getLogger(__name__)

#: Allowed names of artifacts, which are never paths.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")

#: The LoRA of an optimise job, as diffusers calls it.
LORA_FILE = "pytorch_lora_weights.safetensors"
#: The LoRA that came with a job's spec, to begin with.
START_FILE = "start.safetensors"
#: A LoRA that came with a request for images, by its place in ``loras``.
USED_FILE = "lora-{}.safetensors"
#: The picture of a job of questions, answers or expansion.
IMAGE_FILE = "image.png"

MEDIA_TYPES = {
    ".json": "application/json",
    ".jsonl": "application/jsonl",
    ".png": "image/png",
    ".safetensors": "application/octet-stream",
}


#: Bytes a second: a store that takes or gives fewer counts as away.
_SLOWEST = 256 * 1024
#: A file is read in pieces of at least so many bytes.
_PIECE = 256 * 1024
#: What is beyond these the job's or the client's own tries are for.
_RETRIES = 3


class StoreUnavailable(Exception):
    """The store can't do this now: it is full, read-only, away, or does not answer. The message
    says which."""


class StoreRefused(ValueError):
    """There can be no store at this address. The message says why, and never repeats the
    address."""


class ArtifactStore:
    """``url`` is ``file:///folder``, made if it is missing, or ``s3://bucket/prefix``; who may use
    the bucket, and where it is, say the environment's ``AWS_…``.

    A store that is silent for ``seconds`` counts as away: nothing here waits longer, but for the
    bytes of a large file. With ``signed_seconds`` files may be fetched from the store itself.

    Raises ``StoreRefused``.
    """

    def __init__(self, url: str, *, seconds: float = 20.0, signed_seconds: int = 0) -> None:
        self._folder: Path | None = None
        self._seconds = seconds
        self._signed_seconds = signed_seconds
        try:
            if urlsplit(url).scheme == "file":
                self._folder = Path(unquote(urlsplit(url).path))
                self._folder.mkdir(parents=True, exist_ok=True)
            self._store: Any = from_url(url, **({} if self._folder else _patience(seconds)))
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
        await self.write(path, data, _shown(name))
        media_type = MEDIA_TYPES.get(Path(name).suffix, "application/octet-stream")
        digest = await _sha256(data)
        artifact = Artifact(name=name, media_type=media_type, bytes=len(data), sha256=digest)
        return artifact, path

    async def put_checkpoint(
        self, job_id: str, token: str, step: int, data: bytes
    ) -> StoredCheckpoint:
        """Stores a checkpoint completely or not at all: in a folder it is written under another
        name and renamed, and S3 shows an object only once it is complete. Raises
        ``StoreUnavailable``."""
        path = f"jobs/{job_id}/{token}/checkpoints/{step:06d}.safetensors"
        await self.write(path, data)
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
        async with self._answering():
            found = await obstore.get_async(self._store, path)
        async with self._answering(found.meta["size"]):
            return bytes(await found.bytes_async())

    async def delete(self, paths: Sequence[str]) -> None:
        """Those of these files that there are. Raises ``StoreUnavailable``."""
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                async with self._answering():
                    await obstore.delete_async(self._store, path)

    async def erase(self, job_id: str) -> None:
        """Everything of a job, known to Redis or not. Raises ``StoreUnavailable``."""
        async with self._answering():
            listed = obstore.list(self._store, prefix=f"jobs/{job_id}")
            paths = [file["path"] async for files in listed for file in files]
        await self.delete(paths)
        if self._folder is not None:
            # Removes empty folders, and files of a process that died while writing.
            await asyncio.to_thread(shutil.rmtree, self._folder / "jobs" / job_id, True)

    async def write_back(self, path: str, data: bytes) -> None:
        """A file of a backup, as ``put`` or ``put_checkpoint`` stored it. Raises
        ``StoreUnavailable``."""
        is_checkpoint = "/checkpoints/" in path
        await self.write(path, data, None if is_checkpoint else _shown(Path(path).name))

    async def write(self, path: str, data: bytes, attributes: dict[str, str] | None = None) -> None:
        """A whole file, as ``read`` gives it. Raises ``StoreUnavailable``."""
        # A folder has no place for attributes.
        kept = attributes if self._folder is None else None
        try:
            async with self._answering(len(data)):
                await obstore.put_async(self._store, path, data, attributes=kept)
        except FileNotFoundError as error:
            raise StoreUnavailable(reason(error)) from error

    async def signed_url(self, path: str) -> str | None:
        """Where the store itself gives this file to whoever has the address, for a while; ``None``
        where files go through the API. Raises ``StoreUnavailable``."""
        if not self._signed_seconds:
            return None
        async with self._answering():
            expires = timedelta(seconds=self._signed_seconds)
            return str(await obstore.sign_async(self._store, "GET", path, expires))

    async def open(self, path: str, begin: int, end: int) -> AsyncIterator[bytes]:
        """Bytes ``begin`` to ``end`` (exclusive) of a file that is there.

        Raises ``FileNotFoundError`` and ``StoreUnavailable``, the latter while it is read, too.
        """
        async with self._answering():
            if begin == end:
                await obstore.head_async(self._store, path)
                return self._pieces(None)
            found = await obstore.get_async(self._store, path, options={"range": (begin, end)})
            return self._pieces(found)

    async def _pieces(self, found: Any) -> AsyncIterator[bytes]:
        if found is None:
            return
        pieces = aiter(found.stream(min_chunk_size=_PIECE))
        while True:
            # Each for itself: how long the reader takes in between is nobody's fault here.
            async with self._answering():
                piece = await anext(pieces, None)
            if piece is None:
                return
            yield bytes(piece)

    @contextlib.asynccontextmanager
    async def _answering(self, size: int = 0) -> AsyncIterator[None]:
        """For one answer of so many bytes, either way; what fails is ``StoreUnavailable``."""
        try:
            async with asyncio.timeout(self._seconds + size / _SLOWEST):
                yield
        except FileNotFoundError as error:
            if is_bucket_gone(error):
                raise StoreUnavailable(reason(error)) from error
            raise
        except TimeoutError as error:
            log.warning("the artifact store has not answered for %g s", self._seconds)
            raise StoreUnavailable("it does not answer") from error
        except (BaseError, OSError) as error:
            log.warning("the artifact store: %s", error)
            raise StoreUnavailable(reason(error)) from error


def attachment(name: str) -> str:
    """The ``Content-Disposition`` of an artifact."""
    return f'attachment; filename="{name}"'


def _patience(seconds: float) -> dict[str, Any]:
    """How a store in the network is asked: what fails is told soon, and tried again by who knows
    what waits for it."""
    silent = timedelta(seconds=seconds)
    return {
        "client_options": {
            "connect_timeout": silent,
            "read_timeout": silent,
            # Of a whole answer: as long as its bytes keep coming.
            "timeout": timedelta(days=1),
            # Whoever writes an endpoint with http:// means it.
            "allow_http": True,
        },
        "retry_config": {
            "max_retries": _RETRIES,
            "retry_timeout": silent,
            "backoff": {
                "init_backoff": timedelta(seconds=0.1),
                "max_backoff": timedelta(seconds=1),
                "base": 2,
            },
        },
    }


def _shown(name: str) -> dict[str, str]:
    """For who fetches it from the store itself."""
    media_type = MEDIA_TYPES.get(Path(name).suffix, "application/octet-stream")
    return {"Content-Type": media_type, "Content-Disposition": attachment(name)}


async def _sha256(data: bytes) -> str:
    return (await asyncio.to_thread(hashlib.sha256, data)).hexdigest()
