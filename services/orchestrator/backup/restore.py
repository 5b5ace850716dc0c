"""From a folder into an empty Redis and an artifact store."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence

from services.orchestrator.backup.folder import BackupFolder, Manifest
from services.orchestrator.backup.snapshot import Record
from services.orchestrator.store import redis as keys
from services.orchestrator.store.artifacts import ArtifactStore
from services.orchestrator.store.queue import Blame, Claim, Queue

#: The leases of running jobs last this long, until each job is queued again.
_LEASE_MS = 600_000
#: The interruption counts as no attempt.
_ATTEMPTS = 1_000_000
_CAUSE = "the service was restored from a backup"


class RestoreRefused(ValueError):
    """The backup can't be restored into this Redis. The message says why."""


async def restore(
    redis: keys.Client, binary: keys.Client, artifacts: ArtifactStore, folder: BackupFolder
) -> Manifest:
    """``binary`` is a client of the same Redis that decodes nothing.

    Files come first, then all records at once: each record that can be seen has its files, and a
    restore that was interrupted can be run again. Running jobs are queued, and go on from their
    checkpoints. Raises ``RestoreRefused``, ``FolderRefused``, and the errors of both stores.
    """
    manifest, records = await asyncio.to_thread(folder.read)
    await _check_empty(redis)
    await _check_age(binary, records, manifest.redis_version)
    for file in manifest.files:
        await artifacts.write_back(file.path, await asyncio.to_thread(folder.file, file))
    await _write(binary, records)
    await _queue_what_ran(redis)
    return manifest


async def _check_empty(redis: keys.Client) -> None:
    jobs, api_keys = await redis.zcard(keys.JOBS), await redis.scard(keys.API_KEYS)
    if jobs or api_keys:
        raise RestoreRefused(
            f"this Redis already has {jobs} jobs and {api_keys} API keys; restore into an empty one"
        )


async def _check_age(binary: keys.Client, records: Sequence[Record], version: str) -> None:
    """An older Redis refuses records of a newer one, but only one by one, while they are
    written."""
    probe = f"{keys.EVERY[:-1]}probe:{secrets.token_hex(8)}"
    async with binary.pipeline(transaction=True) as pipe:
        pipe.set(probe, "", px=10_000)
        pipe.dump(probe)
        pipe.delete(probe)
        _, own, _ = await pipe.execute()
    if any(_format(record.dump) > _format(own) for record in records):
        here = (await binary.info("server"))["redis_version"]
        raise RestoreRefused(
            f"the backup is of Redis {version}, whose records this Redis {here} can't read; "
            f"restore into {version} or newer"
        )


def _format(dump: bytes) -> int:
    """A dump ends with the version of its format, in two bytes, and a checksum of eight."""
    return int.from_bytes(dump[-10:-8], "little")


async def _write(binary: keys.Client, records: Sequence[Record]) -> None:
    now, _ = await binary.time()
    async with binary.pipeline(transaction=True) as pipe:
        # If a job is submitted in the meantime, this fails, and not the submission.
        await pipe.watch(keys.JOBS, keys.API_KEYS)
        if await pipe.exists(keys.JOBS, keys.API_KEYS):
            raise RestoreRefused("a job or an API key was made just now; stop the API")
        pipe.multi()
        for record in records:
            pipe.restore(record.key, record.ttl_ms, record.dump, replace=True)
        # Otherwise a worker would take them for jobs of a dead worker, which costs an attempt.
        pipe.eval(_RENEW, 1, keys.LEASES, now * 1000 + _LEASE_MS)
        await pipe.execute()


_RENEW = """
for _, id in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  redis.call('ZADD', KEYS[1], ARGV[1], id)
end
"""


async def _queue_what_ran(redis: keys.Client) -> None:
    queue = Queue(redis)
    for job_id in await redis.zrange(keys.LEASES, 0, -1):
        token = await redis.hget(keys.job_key(job_id), "token")
        await queue.requeue(
            Claim(job_id, token), _CAUSE, attempts=_ATTEMPTS, pause_ms=0, blame=Blame.NOBODY
        )
