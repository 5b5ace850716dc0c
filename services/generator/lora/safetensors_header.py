"""The header of a safetensors file: 8 bytes its length, little-endian; JSON padded with spaces so
that the data behind it begins on a multiple of 8."""

from __future__ import annotations

import json
import struct
from typing import Any


def metadata(file: bytes) -> dict[str, str]:
    """What the file says of itself. ``file`` is one that the library reads."""
    found: dict[str, str] = _header(file).get("__metadata__", {})
    return found


def canonical(file: bytes) -> bytes:
    """The same file with its metadata sorted by name: the library writes them in a random order."""
    header = _header(file)
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + file[8 + _length(file) :]


def _header(file: bytes) -> dict[str, Any]:
    header: dict[str, Any] = json.loads(file[8 : 8 + _length(file)])
    return header


def _length(file: bytes) -> int:
    length: int = struct.unpack_from("<Q", file)[0]
    return length
