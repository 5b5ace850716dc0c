"""The chunks of a PNG file: those that make the picture, and those that hold only metadata."""

from __future__ import annotations

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
#: A chunk has its length, its name, its data and a checksum.
_LENGTH, _NAME, _CHECKSUM = 4, 4, 4
#: These hold prompts, workflows, profiles. Pillow refuses a picture with long texts.
_TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")


def without_texts(data: bytes) -> bytes:
    """The file without chunks that no pixel depends on. A file that is not a complete PNG stays
    unchanged."""
    if not data.startswith(_SIGNATURE):
        return data
    kept = [_SIGNATURE]
    begin = len(_SIGNATURE)
    while begin < len(data):
        length = int.from_bytes(data[begin : begin + _LENGTH], "big")
        end = begin + _LENGTH + _NAME + length + _CHECKSUM
        if data[begin + _LENGTH : begin + _LENGTH + _NAME] not in _TEXTS:
            kept.append(data[begin:end])
        begin = end
    return b"".join(kept)
