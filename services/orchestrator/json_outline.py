"""How much a JSON text holds, counted piece by piece as it comes in, before anything is made of it.

What reads JSON reads all of it in one go, and everybody waits meanwhile: these limits keep that go
short, whatever a body is filled with.
"""

from __future__ import annotations

import re

#: Of a text: names with their values, and items of lists.
MAX_VALUES = 50_000
#: Lists and objects within each other. Those of the largest request are 7.
MAX_DEPTH = 32
#: Bytes outside of texts: numbers, brackets, spaces.
MAX_BETWEEN = 8 * 1024 * 1024
#: Bytes of characters beyond ASCII.
MAX_BEYOND_ASCII = 8 * 1024 * 1024
#: Characters written with a backslash. Some programs write the + and / of base64 so: 1 in 32.
MAX_ESCAPES = 2_000_000

_TEXT = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_ASCII = bytes(range(128))
_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")


class TooMuch(Exception):
    """The text is more than any request needs. The message says what of it, and the remedy."""


class Outline:
    """Counts the pieces of one text. Whether it is JSON at all, its reader finds out."""

    def __init__(self, max_values: int = MAX_VALUES) -> None:
        self._max_values = max_values
        self._begun = b""
        self._values = self._depth = self._between = self._beyond_ascii = self._escapes = 0

    @property
    def in_text(self) -> bool:
        """Whether the next piece begins within a text, and not behind a backslash."""
        return self._begun == b'"'

    def feed(self, piece: bytes) -> None:
        """Raises ``TooMuch``."""
        if not piece.isascii():
            self._beyond_ascii += len(piece.translate(None, _ASCII))
        self._escapes += piece.count(b"\\")
        between, quote, begun = _TEXT.sub(b"", self._begun + piece).partition(b'"')
        # Of a text whose end is yet to come, what matters is how it goes on.
        escapes = len(begun) - len(begun.rstrip(b"\\"))
        self._begun = quote + b"\\" * (escapes % 2)
        self._between += len(between)
        self._values += between.count(b",") + between.count(b"[") + between.count(b"{")
        self._check()
        self._follow(between.translate(None, _NO_BRACKETS))

    def _follow(self, brackets: bytes) -> None:
        for bracket in brackets:
            self._depth += 1 if bracket in b"[{" else -1
            if self._depth > MAX_DEPTH:
                raise TooMuch(f"is nested deeper than {MAX_DEPTH}; no request is")
            if self._depth < 0:
                raise TooMuch("is not JSON: a bracket closes what none has opened")

    def _check(self) -> None:
        if self._values > self._max_values:
            raise TooMuch(
                f"has more than {self._max_values:,} fields and items; send several requests"
            )
        if self._between > MAX_BETWEEN:
            raise TooMuch(
                f"has more than {MAX_BETWEEN >> 20} MiB of spaces, numbers and brackets; leave the "
                "spaces out"
            )
        if self._beyond_ascii > MAX_BEYOND_ASCII:
            raise TooMuch(
                f"has more than {MAX_BEYOND_ASCII >> 20} MiB of characters beyond ASCII; send "
                "several requests"
            )
        if self._escapes > MAX_ESCAPES:
            raise TooMuch(
                f"has more than {MAX_ESCAPES:,} characters written with a backslash; write them "
                "as they are"
            )
