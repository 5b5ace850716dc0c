"""Commands whose error messages repeat arguments without their control characters."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from typer.core import TyperGroup

from dualprocess import printable


class CommandGroup(TyperGroup):
    """For ``typer.Typer(cls=…)``."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        with _printable():
            return super().make_context(*args, **kwargs)

    def invoke(self, *args: Any, **kwargs: Any) -> Any:
        with _printable():
            return super().invoke(*args, **kwargs)


@contextmanager
def _printable() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        # Typer shows the messages of its own errors unchanged. In some of its versions their class
        # is click's.
        if isinstance(message := getattr(error, "message", None), str):
            error.message = printable.lines(message)  # type: ignore[attr-defined]
        raise
