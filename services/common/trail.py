"""Which job and which request the work at hand is for: every log line says it, and every call to
another process passes it on."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Self

_JOB, _REQUEST = "dualprocess-job", "dualprocess-request"
#: What may stand in a log line: nothing that could be a word of somebody's prompt, or a key.
_SANE = re.compile(r"(?!dp_)[A-Za-z0-9][A-Za-z0-9._:-]{0,63}")


@dataclass(frozen=True)
class Trail:
    """Empty where there is none."""

    job: str = ""
    request: str = ""

    @classmethod
    def of(cls, metadata: Iterable[tuple[str, str | bytes]]) -> Self:
        """What a call's metadata says, as far as it can be an id."""
        told = {name: value for name, value in metadata if isinstance(value, str)}
        return cls(sane_id(told.get(_JOB, "")), sane_id(told.get(_REQUEST, "")))

    def metadata(self) -> list[tuple[str, str]]:
        """What tells the next process."""
        pairs = ((_JOB, self.job), (_REQUEST, self.request))
        return [(name, value) for name, value in pairs if value]

    def named(self) -> Mapping[str, str]:
        """What there is of it, by name."""
        pairs = (("job", self.job), ("request", self.request))
        return {name: value for name, value in pairs if value}


_NOTHING = Trail()
_CURRENT: ContextVar[Trail] = ContextVar("trail", default=_NOTHING)


def current() -> Trail:
    return _CURRENT.get()


def begin(trail: Trail) -> None:
    """The rest of this task, and what it starts, is for this."""
    _CURRENT.set(trail)


@contextlib.contextmanager
def following(trail: Trail) -> Iterator[None]:
    """What is done within, and what is started there, is for this."""
    token = _CURRENT.set(trail)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def sane_id(text: str) -> str:
    """The id, or nothing where it can't be one."""
    return text if _SANE.fullmatch(text) else ""
