"""Sweeps: every combination of some fields' values."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, TypeAlias

from pydantic import AfterValidator, Field, JsonValue, StringConstraints

from dualprocess.schemas.settings import GuardSettings

#: Fields that can't be swept, with what to use.
_OTHERWISE = {
    "prompt": "use prompts",
    "prompts": "use prompts beside sweep",
    "optimizer.seed": "use seeds or repeats",
    "name": "names tell the values by themselves",
    "metadata": "write it into the spec",
    "webhook": "write it into the spec",
}
#: Characters of one value in a job's name, and of all values together.
_VALUE_CHARACTERS = 24
_NAME_CHARACTERS = 90


def _can_be_swept(sweep: dict[str, list[JsonValue]]) -> dict[str, list[JsonValue]]:
    for path in sweep:
        for fixed, remedy in _OTHERWISE.items():
            if path == fixed or path.startswith(f"{fixed}."):
                raise ValueError(f"{path} can't be swept; {remedy}")
    return sweep


Values: TypeAlias = list[JsonValue]
Sweep = Annotated[
    dict[
        Annotated[str, StringConstraints(pattern=r"^[a-z_]+(\.[a-z_0-9]+)*$", max_length=80)],
        Annotated[Values, Field(min_length=1, max_length=64)],
    ],
    Field(min_length=1, max_length=8),
    AfterValidator(_can_be_swept),
]

#: A value for each path.
Point: TypeAlias = Mapping[str, JsonValue]


class NoSuchPlace(ValueError):
    """A path leads through something that has no fields."""


def count(sweep: Mapping[str, Sequence[Any]]) -> int:
    """How many combinations there are."""
    return math.prod(len(values) for values in sweep.values())


def points(sweep: Mapping[str, Sequence[JsonValue]]) -> Iterator[Point]:
    """Every combination; the last path's values change fastest."""
    for values in itertools.product(*sweep.values()):
        yield dict(zip(sweep, values, strict=True))


def described(point: Point) -> str:
    """The values as a part of a job's name: ``lr 0.001, anchor 0.8``."""
    ends = [path.rpartition(".")[2] for path in point]
    told = [
        f"{end if ends.count(end) == 1 else path} {_value(value)[:_VALUE_CHARACTERS]}"
        for end, (path, value) in zip(ends, point.items(), strict=True)
    ]
    return ", ".join(told)[:_NAME_CHARACTERS]


def put(fields: dict[str, Any], point: Point) -> None:
    """Sets the values in the fields of a spec, in place. Whether they are allowed is the schema's.

    Raises ``NoSuchPlace``.
    """
    for path, value in point.items():
        *parents, last = path.split(".")
        part: Any = fields
        try:
            for parent in parents:
                part = _within(part, parent)
            part[int(last) if isinstance(part, list) else last] = value
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise NoSuchPlace(f"sweep.{path}: the spec has no such place") from error


def _within(part: Any, name: str) -> Any:
    if isinstance(part, list):
        return part[int(name)]
    if name == "guard" and part.get(name) in ("off", False):
        # Changes of single parts start from a guard that is off.
        part[name] = GuardSettings().model_dump()
    return part.setdefault(name, {})


def _value(value: JsonValue) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
