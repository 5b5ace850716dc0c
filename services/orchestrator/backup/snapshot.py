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
#: How the names of what ``artifacts_key`` makes end.
_ARTIFACTS = ":artifacts"


@dataclass(frozen=True)
class StoredFile:
    """A file that a record names, and the SHA-256 that it must have."""

    path: str
    sha256: str


@dataclass(frozen=True)
class Record:
    """A key: ``dump`` is what Redis's RESTORE takes; ``ttl_ms`` is 0 for one that stays."""

    key: str
    ttl_ms: int
    dump: bytes


@dataclass(frozen=True)
class Snapshot:
    """``jobs`` counts them by status."""

    records: Sequence[Record]
    files: Sequence[StoredFile]
    jobs: Mapping[str, int]

    @property
    def api_keys(self) -> int:
        return sum(record.key.startswith(keys.api_key_key("")) for record in self.records)


async def take(redis: keys.Client) -> Snapshot:
    """By a client that decodes nothing. Redis answers nobody else meanwhile."""
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
            # An ended job needs none: its record may name what is gone.
            if status not in _FINAL:
                files += [StoredFile(file.path, file.sha256) for file in checkpoints.load(stored)]
    return Snapshot(records, files, jobs)


def _artifact(entry: str) -> StoredFile:
    """Not by the model of an artifact: a newer version may have described it."""
    path, _, described = entry.partition(" ")
    return StoredFile(path, json.loads(described)["sha256"])
