"""The header of a safetensors file: its length in 8 bytes, little-endian, then JSON, padded with
spaces so that the data after it begin at a multiple of 8."""

from __future__ import annotations

import json
import struct
from typing import Any


def metadata(file: bytes) -> dict[str, str]:
    """The file's metadata. The library must be able to read ``file``."""
    found: dict[str, str] = _header(file).get("__metadata__", {})
    return found


def canonical(file: bytes) -> bytes:
    """The same file with its metadata sorted by name, since the library writes them in a random
    order."""
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
