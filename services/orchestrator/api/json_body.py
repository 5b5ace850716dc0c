"""Collects a JSON body piece by piece, and parses it."""

from __future__ import annotations

import re
import secrets
from typing import Any

from pydantic_core import from_json

from dualprocess.schemas.fields import LongText
from services.orchestrator.json_outline import Outline, TooMuch

#: Bytes of a body without its files.
MAX_BESIDE_FILES = 16 * 1024 * 1024
#: Longer texts can only be files.
_LONG = 1 << 16
#: How some programs write characters of base64, and its line ends, in JSON.
_ESCAPES = (
    (rb"\/", b"/"),
    (rb"\n", b"\n"),
    (rb"\r", b"\r"),
    (rb"\u002B", b"+"),
    (rb"\u002b", b"+"),
    (rb"\u003D", b"="),
    (rb"\u003d", b"="),
)
#: The beginning of an escape that goes on in the next piece.
_UNFINISHED = re.compile(rb"\\u[0-9A-Fa-f]{0,3}\Z")
_ESCAPE = 5
_BOM = b"\xef\xbb\xbf"


class JsonBody:
    """A body in pieces.

    A JSON parser holds the interpreter until it is done. So pieces that are wholly inside one text,
    as most pieces of a file are, are kept apart, and only the rest is parsed.
    """

    def __init__(self) -> None:
        self._outline = Outline()
        self._text = bytearray()
        self._aside: list[bytes] = []
        # Takes the place of such pieces in the text. It is random, so no sender can know it.
        self._mark = secrets.token_hex(16)

    @property
    def is_empty(self) -> bool:
        return not self._text

    def add(self, piece: bytes) -> None:
        """Raises ``TooMuch``."""
        begins_plain = self._outline.in_text and not _UNFINISHED.search(self._text[-_ESCAPE:])
        plain = _plain(piece) if begins_plain else None
        if plain is not None:
            self._text += f"<{self._mark}:{len(self._aside)}>".encode()
            self._aside.append(plain)
        else:
            self._outline.feed(piece)
            self._text += piece
        if len(self._text) > MAX_BESIDE_FILES:
            raise TooMuch(
                f"has more than {MAX_BESIDE_FILES >> 20} MiB without its files; send several "
                "requests"
            )

    def read(self) -> Any:
        """The parsed body. Raises ``ValueError`` if it is not JSON in UTF-8."""
        if self._text.startswith(_BOM):
            del self._text[: len(_BOM)]
        value = from_json(self._text)
        return self._whole(value) if self._aside else value

    def _whole(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._joined(value) if self._mark in value else value
        if isinstance(value, dict):
            return {self._whole(name): self._whole(part) for name, part in value.items()}
        return [self._whole(part) for part in value] if isinstance(value, list) else value

    def _joined(self, text: str) -> str:
        """The text with its pieces put back."""
        parts = re.split(f"<{self._mark}:(\\d+)>", text)
        # Every second part is the number of a piece.
        pieces = [
            self._aside[int(part)].decode() if index % 2 else part
            for index, part in enumerate(parts)
        ]
        is_long = sum(map(len, pieces)) > _LONG
        return LongText(pieces) if is_long else "".join(pieces)


def _plain(piece: bytes) -> bytes | None:
    """The characters that a piece inside a text means; ``None`` if the text may end in it."""
    if not piece.isascii() or b'"' in piece:
        return None
    if b"\\" in piece:
        for written, meant in _ESCAPES:
            piece = piece.replace(written, meant)
    # A backslash that is left belongs to another escape, which the parser has to read.
    return None if b"\\" in piece else piece
