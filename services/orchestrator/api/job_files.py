"""Files of a job as they are sent: those in the artifact store, and those that are made from its
LoRA while they are sent, so that no second copy is stored."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dualprocess.schemas import Artifact, Job
from services.orchestrator.api import peft
from services.orchestrator.api.state import State
from services.orchestrator.store.artifacts import LORA_FILE, MEDIA_TYPES, ArtifactStore

#: Names of the files that are made.
_MADE = (peft.CONFIG_FILE, peft.WEIGHTS_FILE)


@dataclass(frozen=True)
class JobFile:
    """``path`` is where the store has it; ``None`` for one that is made. ``open`` gives bytes
    ``begin`` to ``end`` (exclusive), and raises what ``ArtifactStore.open`` raises."""

    name: str
    media_type: str
    size: int
    etag: str
    path: str | None
    open: Callable[[int, int], Awaitable[AsyncIterator[bytes]]]


def names(job: Job) -> list[str]:
    """Of all files that ``job_file`` finds."""
    stored = [artifact.name for artifact in job.artifacts]
    return [*stored, *(_MADE if LORA_FILE in stored else ())]


async def job_file(state: State, job: Job, name: str) -> JobFile | None:
    """The file of that name; ``None`` if the job has none. Raises ``FileNotFoundError`` and
    ``StoreUnavailable`` for one that is made."""
    if name in _MADE:
        lora = await state.jobs.artifact_path(job.id, LORA_FILE)
        return None if lora is None else await _made(state, job, name, *lora)
    found = await state.jobs.artifact_path(job.id, name)
    if found is None:
        return None
    described, path = found

    async def stored(begin: int, end: int) -> AsyncIterator[bytes]:
        return await state.artifacts.open(path, begin, end)

    etag = f'"{described.sha256}"'
    return JobFile(name, described.media_type, described.bytes, etag, path, stored)


async def _made(state: State, job: Job, name: str, lora: Artifact, path: str) -> JobFile:
    length = int.from_bytes(await _read(state.artifacts, path, 0, 8), "little")
    data = 8 + length
    header: dict[str, Any] = json.loads(await _read(state.artifacts, path, 8, data))
    if name == peft.CONFIG_FILE:
        begins, rest = peft.config(header, _base_model(state, job)), 0
    else:
        begins, rest = peft.weights_header(header), lora.bytes - data

    async def made(begin: int, end: int) -> AsyncIterator[bytes]:
        first = len(begins)
        tensors = None
        if end > first:
            place = data + max(begin - first, 0), data + end - first
            tensors = await state.artifacts.open(path, *place)
        return _joined(begins[begin:end], tensors)

    etag = hashlib.sha256(begins + lora.sha256.encode()).hexdigest()
    media_type = MEDIA_TYPES[Path(name).suffix]
    return JobFile(name, media_type, len(begins) + rest, f'"{etag}"', None, made)


def _base_model(state: State, job: Job) -> str | None:
    """The model's name on the hub; ``None`` for a folder of the service's, or a preset that is no
    longer there."""
    preset = state.presets.generators.get(job.generator)
    return preset.model if preset is not None and preset.is_on_hub else None


async def _read(store: ArtifactStore, path: str, begin: int, end: int) -> bytes:
    return b"".join([piece async for piece in await store.open(path, begin, end)])


async def _joined(begins: bytes, rest: AsyncIterator[bytes] | None) -> AsyncIterator[bytes]:
    if begins:
        yield begins
    if rest is not None:
        async for piece in rest:
            yield piece
