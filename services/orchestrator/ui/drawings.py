"""Visual prompts of the templates, as PNG: red marks on white, where white is transparent."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageColor, ImageDraw, ImageFont

RED = (255, 0, 0)
_WHITE = (255, 255, 255)
#: As shares of the image's height.
_LINE = 1 / 32
_STRIP = 5 / 32
_LETTER = 1 / 10


@dataclass(frozen=True)
class Mark:
    """A label at a place, both coordinates from 0 (left, top) to 1."""

    label: str
    x: float
    y: float

    @classmethod
    def read(cls, data: dict[str, Any]) -> Mark:
        """Reads a mark as the page's widget sends it."""
        place = (min(max(float(data[axis]), 0.0), 1.0) for axis in ("x", "y"))
        return cls(str(data["label"])[:40], *place)


def palette(size: tuple[int, int], colours: Sequence[str]) -> bytes:
    """Swatches side by side along the bottom. Colours are written as in CSS."""
    image, draw = _blank(size)
    width, height = size
    top = height - max(round(height * _STRIP), 1)
    for index, colour in enumerate(colours):
        left, right = (-(-width * edge // len(colours)) for edge in (index, index + 1))
        draw.rectangle((left, top, right - 1, height - 1), _visible(colour))
    return _png(image)


def horizon(size: tuple[int, int], down: float) -> bytes:
    """A red line across the image. ``down`` is the height of its middle, from 0 (top) to 1."""
    image, draw = _blank(size)
    width, height = size
    rows = max(round(height * _LINE), 2)
    top = min(max(round(height * down) - rows // 2, 0), height - rows)
    draw.rectangle((0, top, width - 1, top + rows - 1), RED)
    return _png(image)


def line_weight(size: tuple[int, int], share: float) -> bytes:
    """A red line near the bottom, as thick as ``share`` of the height."""
    image, draw = _blank(size)
    width, height = size
    rows = max(round(height * share), 1)
    bottom = height - max(height // 16, 1)
    draw.rectangle((width // 8, bottom - rows, width - width // 8 - 1, bottom - 1), RED)
    return _png(image)


def points(size: tuple[int, int], marks: Sequence[Mark]) -> bytes:
    """Red dots with their labels beside them."""
    image, draw = _blank(size)
    width, height = size
    radius = max(height / 40, 1.5)
    for mark in marks:
        x, y = mark.x * width, mark.y * height
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), RED)
        # The label goes to the side of the dot where there is room.
        side = "l" if mark.x < 0.7 else "r"
        offset = radius * 1.6 * (1 if side == "l" else -1)
        draw.text((x + offset, y), mark.label, RED, _font(height), anchor=f"{side}m")
    return _png(image)


def composition(size: tuple[int, int], marks: Sequence[Mark]) -> bytes:
    """A red frame around each place, with the label of the place in it."""
    image, draw = _blank(size)
    width, height = size
    stroke = max(round(height / 100), 1)
    for mark in marks:
        x, y = mark.x * width, mark.y * height
        reach_x, reach_y = width / 6, height / 6
        box = (x - reach_x, y - reach_y, x + reach_x, y + reach_y)
        draw.rectangle(box, outline=RED, width=stroke)
        draw.text((x, y), mark.label, RED, _font(height), anchor="mm")
    return _png(image)


def data_url(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _blank(size: tuple[int, int]) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGB", size, _WHITE)
    return image, ImageDraw.Draw(image)


def _visible(colour: str) -> tuple[int, ...]:
    """The colour, but not pure white, since that is transparent."""
    rgb = ImageColor.getrgb(colour)[:3]
    return (254, 254, 254) if rgb == _WHITE else rgb


def _font(height: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(max(height * _LETTER, 8))


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
