"""Reads records of a newer version of the service, without the fields that this version does not
know.

There are such records while a cluster is upgraded, and after a return to an earlier version.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

ModelT = TypeVar("ModelT", bound=BaseModel)


class UnreadableJob(Exception):
    """This version can't read the job's record; or can't read all of it, where all is needed."""

    def __init__(self, job_id: str, owner: str, fields: Sequence[str] = ()) -> None:
        what = ", ".join(fields) if fields else "its record"
        super().__init__(f"job {job_id}: this version of the service can't read {what}")
        self.job_id = job_id
        self.owner = owner


@dataclass
class KnownParts:
    """Reads models from JSON without unknown fields; ``left_out`` has their names."""

    left_out: list[str] = field(default_factory=list)

    def read(self, model: type[ModelT], text: str, name: str) -> ModelT:
        """Reads the field ``name`` of a record. Raises ``ValidationError`` if it is wrong even
        without its unknown fields."""
        try:
            return model.model_validate_json(text)
        except ValidationError as error:
            fault = error
        data: Any = json.loads(text)
        while True:
            unknown = [path for one in fault.errors() if (path := _held(data, one["loc"]))]
            if not unknown:
                raise fault
            for path in unknown:
                if _take_out(data, path):
                    self.left_out.append(".".join(map(str, (name, *path))))
            try:
                return model.model_validate_json(json.dumps(data))
            except ValidationError as error:
                fault = error


def _held(data: Any, location: Sequence[int | str]) -> list[int | str]:
    """The path of the value that a fault is about. Pydantic also puts the names of a union's
    members into it; they are left out here."""
    path: list[int | str] = []
    for part in location:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            continue
        path.append(part)
    return path


def _take_out(data: Any, path: Sequence[int | str]) -> bool:
    """Removes the value at ``path``. False if it was removed together with an earlier one."""
    *parents, last = path
    try:
        for part in parents:
            data = data[part]
        del data[last]
    except (KeyError, IndexError, TypeError):
        return False
    return True
