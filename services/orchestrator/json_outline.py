"""Counts what a JSON text contains, piece by piece as it comes in, before it is parsed.

A JSON parser holds the interpreter until it is done. These limits keep that time short for every
body.
"""

from __future__ import annotations

import re

#: The most fields and list items of a text.
MAX_VALUES = 50_000
#: The greatest depth of lists and objects inside each other. The deepest request has 7.
MAX_DEPTH = 32
#: Bytes outside of texts: numbers, brackets, spaces.
MAX_BETWEEN = 8 * 1024 * 1024
#: Bytes of characters outside of ASCII.
MAX_BEYOND_ASCII = 8 * 1024 * 1024
#: Characters written with a backslash. Some programs write + and / of base64 so, which is 1
#: character in 32.
MAX_ESCAPES = 2_000_000

_TEXT = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_ASCII = bytes(range(128))
_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")


class TooMuch(Exception):
    """The text has more of something than any request needs. The message has the remedy."""


class Outline:
    """Counts the pieces of one text. It does not check whether the text is JSON."""

    def __init__(self, max_values: int = MAX_VALUES) -> None:
        self._max_values = max_values
        self._begun = b""
        self._values = self._depth = self._between = self._beyond_ascii = self._escapes = 0

    @property
    def in_text(self) -> bool:
        """Whether the next piece begins inside a text, and not after a backslash."""
        return self._begun == b'"'

    def feed(self, piece: bytes) -> None:
        """Counts the next piece. Raises ``TooMuch``."""
        if not piece.isascii():
            self._beyond_ascii += len(piece.translate(None, _ASCII))
        self._escapes += piece.count(b"\\")
        between, quote, begun = _TEXT.sub(b"", self._begun + piece).partition(b'"')
        # Kept of an unfinished text: that it began, and whether it ends in a backslash.
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
                raise TooMuch(
                    f"has more than {MAX_DEPTH} lists and objects inside each other; no request "
                    "needs so many"
                )
            if self._depth < 0:
                raise TooMuch("is not JSON: it has a closing bracket without an opening one")

    def _check(self) -> None:
        if self._values > self._max_values:
            raise TooMuch(
                f"has more than {self._max_values:,} fields and items; send several requests"
            )
        if self._between > MAX_BETWEEN:
            raise TooMuch(
                f"has more than {MAX_BETWEEN >> 20} MiB of spaces, numbers and brackets; leave out "
                "the spaces"
            )
        if self._beyond_ascii > MAX_BEYOND_ASCII:
            raise TooMuch(
                f"has more than {MAX_BEYOND_ASCII >> 20} MiB of characters outside of ASCII; send "
                "several requests"
            )
        if self._escapes > MAX_ESCAPES:
            raise TooMuch(
                f"has more than {MAX_ESCAPES:,} characters written with a backslash; write them "
                "as they are"
            )
