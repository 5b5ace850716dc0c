"""Pictures that come with a request."""

from __future__ import annotations

import io

from PIL import Image

from services.common import pictures
from services.common.errors import InvalidInput

#: An upload, encoded.
MAX_BYTES = 10 * 1024 * 1024
#: Pixels of all drawings of one spec: each is decoded and encoded again.
MAX_DRAWN_PIXELS = 4 * pictures.MAX_PIXELS
#: Bytes of all of them as PNGs: they are stored in Redis, and read with the job.
MAX_DRAWN_BYTES = 16 * 1024 * 1024


class DrawingsTooLarge(Exception):
    """The message says how large they are together, and what is allowed."""


class Drawings:
    """Decodes the drawings of one spec, one after the other."""

    def __init__(self) -> None:
        self._pixels = 0
        self._bytes = 0

    def plain_png(self, data: bytes, field: str) -> bytes:
        """As the function; raises ``DrawingsTooLarge`` for the first that is too much."""
        image = _decoded(data, field)
        self._pixels += image.width * image.height
        if self._pixels > MAX_DRAWN_PIXELS:
            million = MAX_DRAWN_PIXELS // 10**6
            raise DrawingsTooLarge(
                f"have drawings of more than {million} million pixels together; send smaller ones"
            )
        png = _png(image)
        self._bytes += len(png)
        if self._bytes > MAX_DRAWN_BYTES:
            raise DrawingsTooLarge(
                f"have drawings of more than {MAX_DRAWN_BYTES >> 20} MiB together, as PNG; send "
                "smaller or plainer ones"
            )
        return png


def plain_png(data: bytes, field: str) -> bytes:
    """A PNG with the pixels and nothing else: metadata of an upload is dropped.

    Raises ``InvalidInput`` that begins with ``field``.
    """
    return _png(_decoded(data, field))


def pixels_of(png: bytes) -> int:
    """The number of pixels of a PNG that ``plain_png`` made. The PNG is not decoded."""
    with Image.open(io.BytesIO(png)) as image:
        return image.width * image.height


def _decoded(data: bytes, field: str) -> Image.Image:
    if len(data) > MAX_BYTES:
        raise InvalidInput(f"{field}: has {len(data) >> 20} MiB; send at most 10 MiB")
    return pictures.decode(data, field)


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
