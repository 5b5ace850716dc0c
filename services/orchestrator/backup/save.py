"""From Redis and the artifact store into a folder, while the service runs."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime

from services.orchestrator.backup.folder import BackupFolder, File, Manifest
from services.orchestrator.backup.snapshot import Snapshot, StoredFile, take
from services.orchestrator.store import redis as keys
from services.orchestrator.store.artifacts import ArtifactStore

#: Running jobs write new checkpoints and delete old ones. The next snapshot does not name a
#: checkpoint that was deleted before it could be copied.
_SNAPSHOTS = 5


async def save(redis: keys.Client, artifacts: ArtifactStore, folder: BackupFolder) -> Manifest:
    """``redis`` decodes nothing. Raises the errors of both stores, and ``OSError`` of the disk."""
    copied: dict[str, File] = {}
    for _ in range(_SNAPSHOTS):
        snapshot = await take(redis)
        missing = await _copy(snapshot.files, artifacts, folder, copied)
        if not missing:
            break
    manifest = await _manifest(redis, snapshot, copied, missing)
    await asyncio.to_thread(folder.finish, manifest, snapshot.records)
    return manifest


async def _copy(
    files: Sequence[StoredFile],
    artifacts: ArtifactStore,
    folder: BackupFolder,
    copied: dict[str, File],
) -> list[str]:
    """Returns the paths of files that are missing in the store, or changed there."""
    missing = []
    for file in files:
        if file.path in copied:
            continue
        try:
            data = await artifacts.read(file.path)
        except FileNotFoundError:
            missing.append(file.path)
            continue
        if await asyncio.to_thread(_sha256, data) != file.sha256:
            missing.append(file.path)
            continue
        await asyncio.to_thread(folder.add, file.path, data)
        copied[file.path] = File(path=file.path, sha256=file.sha256, bytes=len(data))
    return missing


async def _manifest(
    redis: keys.Client, snapshot: Snapshot, copied: dict[str, File], missing: list[str]
) -> Manifest:
    server = await redis.info("server")
    named = dict.fromkeys(file.path for file in snapshot.files)
    return Manifest(
        made_at=datetime.now(UTC),
        redis_version=str(server["redis_version"]),
        records=len(snapshot.records),
        records_sha256="",
        jobs=dict(snapshot.jobs),
        api_keys=snapshot.api_keys,
        files=[copied[path] for path in named if path in copied],
        missing=missing,
    )


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
