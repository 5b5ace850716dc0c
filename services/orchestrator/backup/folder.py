"""A backup on disk: `backup.json`, written last, `records.jsonl`, and the files below `files/`.

Only its owner can read it (0700, 0600): it has hashes of API keys, secrets of webhooks, and all
prompts.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from services.orchestrator.backup.snapshot import Record

_VERSION = 1
_MANIFEST = "backup.json"
_RECORDS = "records.jsonl"
_FILES = "files"
#: As the artifact store names what it keeps.
_PATH = re.compile(r"jobs(/[A-Za-z0-9][A-Za-z0-9._-]*)+")


class FolderRefused(ValueError):
    """The folder can't take a backup, or is not one. The message says why."""


class File(BaseModel):
    path: str
    sha256: str
    bytes: int


class Manifest(BaseModel):
    """``missing`` are files that a record names and that were not in the store, or were changed
    there. ``jobs`` has the number of jobs of each status."""

    model_config = ConfigDict(extra="forbid")

    version: int = _VERSION
    made_at: datetime
    redis_version: str
    records: int
    records_sha256: str
    jobs: dict[str, int]
    api_keys: int
    files: list[File]
    missing: list[str]


class BackupFolder:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def make(self) -> None:
        """Makes the folder. Raises ``FolderRefused`` if it has anything in it."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if any(self._folder.iterdir()):
                raise FolderRefused(f"{self._folder} is not empty; name a new folder")
            self._folder.chmod(0o700)
        except OSError as error:
            raise FolderRefused(
                f"{self._folder} can't be the folder ({error.strerror}); choose another"
            ) from error

    def add(self, path: str, data: bytes) -> None:
        place = self._place(path)
        # One call that makes several folders would give the mode only to the last one.
        for parent in [*reversed(place.relative_to(self._folder).parents)][1:]:
            (self._folder / parent).mkdir(mode=0o700, exist_ok=True)
        _write(place, data)

    def finish(self, manifest: Manifest, records: Sequence[Record]) -> None:
        """Removes files that no record names, and writes records and manifest."""
        named = {self._place(file.path) for file in manifest.files}
        for place in (self._folder / _FILES).rglob("*"):
            if place.is_file() and place not in named:
                place.unlink()
        text = "".join(_line(record) for record in records)
        manifest.records_sha256 = _sha256(text.encode())
        _write(self._folder / _RECORDS, text.encode())
        _write(self._folder / _MANIFEST, manifest.model_dump_json(indent=2).encode())

    def read(self) -> tuple[Manifest, list[Record]]:
        """Raises ``FolderRefused`` if it is not a backup, or not a complete one."""
        try:
            manifest = Manifest.model_validate_json((self._folder / _MANIFEST).read_bytes())
            text = (self._folder / _RECORDS).read_bytes()
        except FileNotFoundError as error:
            raise FolderRefused(
                f"{self._folder} is not a backup, or one that was not finished: it has no "
                f"{Path(error.filename).name}; name the folder of a backup"
            ) from error
        except OSError as error:
            raise FolderRefused(f"{self._folder} can't be read ({error.strerror})") from error
        except ValidationError as error:
            raise FolderRefused(
                f"{self._folder / _MANIFEST} is of another version of the service, or damaged; use "
                "another backup"
            ) from error
        if manifest.version != _VERSION or _sha256(text) != manifest.records_sha256:
            raise FolderRefused(f"{self._folder / _RECORDS} is damaged; use another backup")
        return manifest, [_record(line) for line in text.decode().splitlines()]

    def file(self, file: File) -> bytes:
        """Raises ``FolderRefused`` if it is missing or was changed."""
        try:
            data = self._place(file.path).read_bytes()
        except OSError as error:
            raise FolderRefused(
                f"{self._place(file.path)} can't be read ({error.strerror})"
            ) from error
        if _sha256(data) != file.sha256:
            raise FolderRefused(f"{self._place(file.path)} is damaged; use another backup")
        return data

    def _place(self, path: str) -> Path:
        if not _PATH.fullmatch(path):
            raise FolderRefused(f"{path!r} can't be a path of the artifact store")
        return self._folder / _FILES / path


def _line(record: Record) -> str:
    dump = base64.b64encode(record.dump).decode()
    return json.dumps({"key": record.key, "ttl_ms": record.ttl_ms, "dump": dump}) + "\n"


def _record(line: str) -> Record:
    read = json.loads(line)
    return Record(read["key"], read["ttl_ms"], base64.b64decode(read["dump"]))


def _write(place: Path, data: bytes) -> None:
    """Returns when the file is on disk."""
    descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
