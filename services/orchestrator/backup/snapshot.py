"""All records of the service, of one moment."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dualprocess.schemas import JobStatus
from services.orchestrator.store import checkpoints
from services.orchestrator.store import redis as keys
from services.orchestrator.store.scripts import script

_FINAL = {status.value for status in JobStatus if status.is_final}
#: How names end that ``artifacts_key`` makes.
_ARTIFACTS = ":artifacts"


@dataclass(frozen=True)
class StoredFile:
    """A file that a record names, and the SHA-256 that it must have."""

    path: str
    sha256: str


@dataclass(frozen=True)
class Record:
    """A key of Redis: ``dump`` is for Redis's RESTORE; ``ttl_ms`` is 0 if it does not expire."""

    key: str
    ttl_ms: int
    dump: bytes


@dataclass(frozen=True)
class Snapshot:
    """``jobs`` has the number of jobs of each status."""

    records: Sequence[Record]
    files: Sequence[StoredFile]
    jobs: Mapping[str, int]

    @property
    def api_keys(self) -> int:
        return sum(record.key.startswith(keys.api_key_key("")) for record in self.records)


async def take(redis: keys.Client) -> Snapshot:
    """``redis`` is a client that decodes nothing. Redis answers nobody else in the meantime."""
    found = await script(redis, "snapshot")(
        keys=[keys.JOBS], args=[keys.EVERY, keys.job_key(""), *keys.OF_LIVE_PROCESSES]
    )
    records: list[Record] = []
    files: list[StoredFile] = []
    jobs: Counter[str] = Counter()
    for name, ttl, dump, said in found:
        key, told = name.decode(), [text.decode() for text in said]
        records.append(Record(key, max(int(ttl), 0), dump))
        if key.endswith(_ARTIFACTS):
            files += map(_artifact, told)
        elif told:
            status, stored = told
            jobs[status] += 1
            # An ended job needs no checkpoints: its record may name deleted ones.
            if status not in _FINAL:
                files += [StoredFile(file.path, file.sha256) for file in checkpoints.load(stored)]
    return Snapshot(records, files, jobs)


def _artifact(entry: str) -> StoredFile:
    """Without the model of an artifact, since a newer version may have written it."""
    path, _, described = entry.partition(" ")
    return StoredFile(path, json.loads(described)["sha256"])
