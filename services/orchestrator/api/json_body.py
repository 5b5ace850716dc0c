"""A body of JSON as it comes in, piece by piece, and what it holds."""

from __future__ import annotations

import re
import secrets
from typing import Any

from pydantic_core import from_json

from dualprocess.schemas.fields import LongText
from services.orchestrator.json_outline import Outline, TooMuch

#: Bytes of a body but for its files.
MAX_BESIDE_FILES = 16 * 1024 * 1024
#: Characters, of which only a file has as many.
_LONG = 1 << 16
#: How programs write some of base64's characters, and the ends of its lines, in JSON.
_ESCAPES = (
    (rb"\/", b"/"),
    (rb"\n", b"\n"),
    (rb"\r", b"\r"),
    (rb"\u002B", b"+"),
    (rb"\u002b", b"+"),
    (rb"\u003D", b"="),
    (rb"\u003d", b"="),
)
#: An escape whose end is yet to come, as far as it can have come.
_UNFINISHED = re.compile(rb"\\u[0-9A-Fa-f]{0,3}\Z")
_ESCAPE = 5
_BOM = b"\xef\xbb\xbf"


class JsonBody:
    """Pieces that lie within one text, as most of a file's do, are kept aside: whatever reads JSON
    reads it in one go, and everybody waits meanwhile."""

    def __init__(self) -> None:
        self._outline = Outline()
        self._text = bytearray()
        self._aside: list[bytes] = []
        # Stands in the text for pieces that are kept aside; nobody who sends a body knows it.
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
                f"has more than {MAX_BESIDE_FILES >> 20} MiB beside its files; send several "
                "requests"
            )

    def read(self) -> Any:
        """What it holds. Raises ``ValueError`` for what is no JSON in UTF-8."""
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
        """The text with the pieces that were kept aside of it."""
        parts = re.split(f"<{self._mark}:(\\d+)>", text)
        # Every other one is a piece's number.
        pieces = [
            self._aside[int(part)].decode() if index % 2 else part
            for index, part in enumerate(parts)
        ]
        is_long = sum(map(len, pieces)) > _LONG
        return LongText(pieces) if is_long else "".join(pieces)


def _plain(piece: bytes) -> bytes | None:
    """What a piece from within a text stands for; ``None`` where the text may end in it."""
    if not piece.isascii() or b'"' in piece:
        return None
    if b"\\" in piece:
        for written, meant in _ESCAPES:
            piece = piece.replace(written, meant)
    # A control character is no JSON, unless it was an escape: then it is none any more.
    return None if b"\\" in piece else piece
