"""Draws the visual prompts of the paper's tasks anew: ``python -m examples.paper.draw``.

Each is as large as the image it is laid over, so that nothing is resized; pure white is clear.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

FOLDER = Path(__file__).parent / "visual_prompts"
SIDE = 512
WHITE, RED = (255, 255, 255), (255, 0, 0)

#: Evening: night blue, plum, orange.
SWATCHES = ((24, 44, 97), (142, 68, 113), (246, 153, 63))
STRIP_ROWS = 80


def palette(draw: ImageDraw.ImageDraw) -> None:
    """Three swatches along the bottom."""
    for index, color in enumerate(SWATCHES):
        left, right = (SIDE * edge // len(SWATCHES) for edge in (index, index + 1))
        draw.rectangle((left, SIDE - STRIP_ROWS, right - 1, SIDE - 1), color)


def line_weight(draw: ImageDraw.ImageDraw) -> None:
    """One line at the bottom, as heavy as those of the image shall be."""
    draw.line((64, SIDE - 40, SIDE - 64, SIDE - 40), RED, width=12)


def horizon(draw: ImageDraw.ImageDraw) -> None:
    """A line across the lower third."""
    draw.line((0, 352, SIDE, 352), RED, width=6)


def relative_depth(draw: ImageDraw.ImageDraw) -> None:
    """A point A far up on the left, a point B low on the right."""
    for x, y, label in ((150, 190, "A"), (362, 400, "B")):
        draw.ellipse((x - 10, y - 10, x + 10, y + 10), RED)
        _write(draw, x + 16, y - 40, label)


def composition(draw: ImageDraw.ImageDraw) -> None:
    """A round thing on the left, a tall one on the right, both on one line of ground."""
    draw.line((24, 400, SIDE - 24, 400), RED, width=6)
    draw.ellipse((60, 232, 228, 400), outline=RED, width=6)
    _write(draw, 68, 410, "pumpkin")
    draw.rectangle((340, 120, 440, 400), outline=RED, width=6)
    _write(draw, 300, 410, "milk churn")


def _write(draw: ImageDraw.ImageDraw, left: int, top: int, text: str) -> None:
    """In Pillow's bitmap font, which is the same everywhere, enlarged."""
    font = ImageFont.load_default_imagefont()
    _, _, width, height = (int(edge) for edge in font.getbbox(text))
    letters = Image.new("1", (width, height))
    ImageDraw.Draw(letters).text((0, 0), text, 1, font)
    draw.bitmap((left, top), letters.resize((width * 3, height * 3)), RED)


DRAWINGS: dict[str, Callable[[ImageDraw.ImageDraw], None]] = {
    "palette": palette,
    "line-weight": line_weight,
    "horizon": horizon,
    "relative-depth": relative_depth,
    "composition": composition,
}


def drawn(name: str) -> Image.Image:
    """The drawing for the job file of this name."""
    image = Image.new("RGB", (SIDE, SIDE), WHITE)
    DRAWINGS[name](ImageDraw.Draw(image))
    return image


if __name__ == "__main__":
    for name in DRAWINGS:
        drawn(name).save(FOLDER / f"{name}.png", optimize=True)
