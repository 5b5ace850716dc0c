"""Same tensors and metadata, same bytes: the library writes metadata in a random order."""

from __future__ import annotations

import json
import struct


def canonical(file: bytes) -> bytes:
    """The same safetensors file with its metadata sorted by name.

    Format: 8 bytes length of the header, little-endian; the header, JSON padded with spaces so
    that the data begins on a multiple of 8; the data.
    """
    (length,) = struct.unpack_from("<Q", file)
    header = json.loads(file[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + file[8 + length :]
