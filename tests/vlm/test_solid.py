"""Solid drawings over images of another size: lines stay lines, white stays transparent."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image, ImageDraw

from dualprocess.v1 import vlm_pb2
from services.vlm.visual_prompt import VisualPrompt
from tests.vlm.conftest import png

SOLID = vlm_pb2.VISUAL_PROMPT_MODE_SOLID
#: A level that no drawing here has.
UNDER = 0.123

Drawn = tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]


def laid(drawing: Image.Image, size: tuple[int, int]) -> Drawn:
    """What lies over an image of ``size`` = (width, height): its pixels, and where it does."""
    prompt = VisualPrompt.decode(png(np.asarray(drawing.convert("RGB"))), SOLID, "drawing")
    over = prompt.over(torch.full((1, 3, size[1], size[0]), UNDER))[0]
    pixels = ((over + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return pixels, (over != UNDER).any(0).numpy()


def colours(drawn: Drawn) -> set[tuple[int, ...]]:
    pixels, is_drawn = drawn
    return {tuple(map(int, colour)) for colour in pixels[is_drawn]}


def line(width: int, height: int, top: int, rows: int, colour: str) -> Image.Image:
    image = Image.new("RGB", (width, height), "white")
    image.paste(Image.new("RGB", (width, rows), colour), (0, top))
    return image


#: Of the drawing, the image, the line's top and rows; how many rows it may have over the image.
LINES = [
    # Shrunk.
    ((128, 128), (64, 64), 0, 1, {1}),
    ((128, 128), (64, 64), 127, 1, {1}),
    ((256, 256), (64, 64), 77, 1, {1}),
    ((256, 256), (64, 64), 77, 2, {1, 2}),
    ((500, 300), (64, 64), 150, 1, {1, 2}),
    ((257, 511), (64, 48), 200, 3, {1, 2}),
    ((1024, 1024), (64, 64), 511, 1, {1}),
    ((1024, 1024), (64, 64), 511, 2, {1, 2}),
    ((1024, 1024), (64, 64), 500, 64, {4, 5}),
    ((2048, 2048), (16, 16), 1000, 1, {1}),
    ((65, 65), (64, 64), 30, 1, {1, 2}),
    # Enlarged.
    ((16, 16), (64, 64), 5, 1, {4}),
    ((16, 16), (50, 37), 5, 1, {2, 3}),
    ((64, 64), (65, 65), 63, 1, {1, 2}),
    ((8, 8), (512, 512), 3, 2, {128}),
    ((1, 9), (64, 64), 4, 1, {7, 8}),
    # One side shrunk, the other enlarged.
    ((512, 16), (64, 64), 5, 1, {4}),
    ((16, 512), (64, 64), 300, 1, {1}),
]


@pytest.mark.parametrize("colour", ["#ff0000", "#fefefe"])
@pytest.mark.parametrize(("size", "image", "top", "rows", "allowed"), LINES)
def test_a_line_stays_a_line_of_its_colour(
    size: tuple[int, int],
    image: tuple[int, int],
    top: int,
    rows: int,
    allowed: set[int],
    colour: str,
) -> None:
    across = line(*size, top, rows, colour)
    down, turned = across.transpose(Image.Transpose.TRANSPOSE), image[::-1]
    for drawn, axis in ((laid(across, image), 0), (laid(down, turned), 1)):
        covered = np.moveaxis(drawn[1], axis, 0)
        found = np.flatnonzero(covered.any(1))
        assert covered[found].all(), "it has gaps"
        assert len(found) in allowed
        assert found[-1] - found[0] == len(found) - 1
        middle = (found[0] + found[-1] + 1) / 2 / len(covered)
        wanted = (top + rows / 2) / size[1]
        assert abs(middle - wanted) <= 1 / len(covered)
        assert colours(drawn) == {tuple(bytes.fromhex(colour[1:]))}


def slanted(draw: ImageDraw.ImageDraw) -> None:
    draw.line((10, 20, 500, 300), fill="red", width=1)


def steep(draw: ImageDraw.ImageDraw) -> None:
    draw.line((200, 5, 260, 500), fill="red", width=2)


def diagonal(draw: ImageDraw.ImageDraw) -> None:
    draw.line((0, 511, 511, 0), fill="red", width=1)


def circle(draw: ImageDraw.ImageDraw) -> None:
    draw.ellipse((100, 100, 401, 395), outline="red", width=1)


def frame_on_a_post(draw: ImageDraw.ImageDraw) -> None:
    draw.rectangle((100, 100, 300, 300), fill="red")
    draw.line((200, 300, 207, 500), fill="red", width=1)


@pytest.mark.parametrize("side", [64, 100, 200, 511])
@pytest.mark.parametrize("shape", [slanted, steep, diagonal, circle, frame_on_a_post])
def test_a_thin_shape_stays_in_one_piece(
    shape: Callable[[ImageDraw.ImageDraw], None], side: int
) -> None:
    drawing = Image.new("RGB", (512, 512), "white")
    shape(ImageDraw.Draw(drawing))
    drawn = laid(drawing, (side, side))
    assert colours(drawn) == {(255, 0, 0)}
    places = {(int(y), int(x)) for y, x in zip(*np.nonzero(drawn[1]), strict=True)}
    reached = [places.pop()]
    for y, x in reached:
        near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & places
        places -= near
        reached += near
    assert not places, "it fell into pieces"


def test_a_block_keeps_its_size_and_its_edge() -> None:
    drawing = Image.new("RGB", (300, 300), "white")
    drawing.paste("blue", (90, 90, 211, 211))
    drawn = laid(drawing, (64, 64))
    assert colours(drawn) == {(0, 0, 255)}
    wanted = 121 * 64 / 300
    assert abs(np.sqrt(drawn[1].sum()) - wanted) <= 1


@pytest.mark.parametrize("size", [(64, 64), (48, 80), (500, 20)])
def test_white_is_clear_at_every_size(size: tuple[int, int]) -> None:
    assert not laid(Image.new("RGB", (100, 100), "white"), size)[1].any()


def test_a_drawing_of_the_images_size_is_taken_pixel_by_pixel() -> None:
    generator = np.random.default_rng(0)
    noise = generator.integers(253, 256, (40, 56, 3), dtype=np.uint8)
    pixels, is_drawn = laid(Image.fromarray(noise), (56, 40))
    assert (is_drawn == (noise != 255).any(-1)).all()
    assert (pixels[is_drawn] == noise[is_drawn]).all()
