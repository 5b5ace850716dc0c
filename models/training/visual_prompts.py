"""Drawings to put over an image: a red line, a strip of three swatches. Pure white is
transparent."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.training.world import SIDE, Floats

LINE_RGB = (255, 0, 0)
LINE_ROWS = 2
STRIP_ROWS = 10

Drawing = NDArray[np.uint8]


def line(row: int) -> Drawing:
    """(64, 64, 3): a red line, two pixels thick, whose middle is `row` pixels from the top."""
    drawing = np.full((SIDE, SIDE, 3), 255, np.uint8)
    drawing[row - LINE_ROWS // 2 : row + LINE_ROWS // 2] = LINE_RGB
    return drawing


def palette(swatches: NDArray[np.uint8]) -> Drawing:
    """(64, 64, 3): the swatches (3, 3) side by side along the bottom."""
    drawing = np.full((SIDE, SIDE, 3), 255, np.uint8)
    columns = np.arange(SIDE) * len(swatches) // SIDE
    drawing[-STRIP_ROWS:] = swatches[columns]
    return drawing


def overlay(image: Floats, drawing: Drawing) -> Floats:
    """`solid` mode on images (…, 64, 64, 3) in [0, 1]: pixels that aren't pure white cover the
    image."""
    clear = (drawing == 255).all(axis=-1, keepdims=True)
    return np.where(clear, image, drawing.astype(np.float32) / 255).astype(np.float32)
