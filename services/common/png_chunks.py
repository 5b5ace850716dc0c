"""A PNG file's chunks: what a picture is made of, and what was only written into its file."""

from __future__ import annotations

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
#: A chunk's length, its name, and behind its data a checksum.
_LENGTH, _NAME, _CHECKSUM = 4, 4, 4
#: Prompts, workflows, profiles. Pillow refuses a picture whose texts are long.
_TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")


def without_texts(data: bytes) -> bytes:
    """The file without what no pixel depends on. Whatever is no whole PNG stays as it is."""
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
