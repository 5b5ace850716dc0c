"""Encoded pictures from a caller."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from services.common import pictures

GREYS = np.array([[0, 1000, 32768, 65535]], np.uint16)


def _png(grey: Image.Image, **options: int) -> bytes:
    buffer = io.BytesIO()
    grey.save(buffer, "PNG", **options)
    return buffer.getvalue()


def _decoded(data: bytes) -> list[list[int]]:
    picture = pictures.decode(data, "image")
    assert picture.mode == "RGB"
    row: list[list[int]] = np.array(picture)[0].tolist()
    return row


def test_greys_of_16_bits_keep_their_brightness() -> None:
    assert _decoded(_png(Image.fromarray(GREYS))) == [[grey] * 3 for grey in (0, 4, 128, 255)]


def test_a_transparent_grey_of_16_bits_is_white() -> None:
    data = _png(Image.fromarray(GREYS), transparency=1000)
    assert _decoded(data) == [[grey] * 3 for grey in (0, 255, 128, 255)]


def test_greys_of_8_bits_are_as_they_are() -> None:
    data = _png(Image.fromarray(np.array([[0, 4, 128, 255]], np.uint8)))
    assert _decoded(data) == [[grey] * 3 for grey in (0, 4, 128, 255)]
