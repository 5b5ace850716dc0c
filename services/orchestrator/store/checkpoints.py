"""Checkpoints as a job's hash lists them, newest first."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, TypeAdapter

#: How many checkpoints of a job are kept: one is in use while the next is written, and one may be
#: damaged.
KEPT = 2


class StoredCheckpoint(BaseModel):
    """How many steps were done, and where its file is."""

    step: int
    path: str
    sha256: str


_LIST: TypeAdapter[list[StoredCheckpoint]] = TypeAdapter(list[StoredCheckpoint])


def dump(listed: Sequence[StoredCheckpoint]) -> str:
    """The field's value; empty for none."""
    return _LIST.dump_json(list(listed)).decode() if listed else ""


def load(value: str | None) -> list[StoredCheckpoint]:
    return _LIST.validate_json(value) if value else []
