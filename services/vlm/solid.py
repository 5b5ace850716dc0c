"""Resizes solid drawings: drawn pixels keep their colour, white stays transparent."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]


def resized(drawing: Image.Image, size: tuple[int, int]) -> tuple[Pixels, Mask]:
    """The RGB drawing's pixels at ``size`` = (width, height), and which of them are drawn: all
    that are not pure white.

    A pixel counts as drawn if at least half of it is drawn. It also counts if less of it is drawn,
    but more than of both its neighbours across or down, so that a line thinner than a pixel stays a
    line. Its colour is the mean of the drawn part, without the white.
    """
    red_HW, green_HW, blue_HW = channels = [np.asarray(channel) for channel in drawing.split()]
    is_drawn_HW = (red_HW & green_HW & blue_HW) != 255
    if drawing.size == size:
        return np.stack(channels, axis=-1), is_drawn_HW
    part_HW = _mean(is_drawn_HW, size)
    means = [_mean(channel_HW * is_drawn_HW, size) for channel_HW in channels]
    mean_HWC = np.stack(means, axis=-1) / np.maximum(part_HW, _LEAST)[..., None]
    is_line_HW = _is_ridge(part_HW) | _is_ridge(part_HW.T).T
    drawn_HW = (part_HW >= 0.5) | ((part_HW > _LEAST) & is_line_HW)
    return mean_HWC.round().clip(0, 255).astype(np.uint8), drawn_HW


#: Less than the part that one pixel of the largest drawing takes in a pixel of the smallest image.
_LEAST = 1e-7


def _mean(values_HW: npt.NDArray[np.generic], size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """The mean over the part of the drawing that lies under each pixel."""
    picture = Image.fromarray(values_HW.astype(np.float32))
    return np.asarray(picture.resize(size, Image.Resampling.BOX))


def _is_ridge(part_HW: npt.NDArray[np.float32]) -> Mask:
    """At least as much as above and below, and more than at one of them."""
    above_and_below = np.pad(part_HW, ((1, 1), (0, 0)), mode="edge")
    above, below = above_and_below[:-2], above_and_below[2:]
    both = (part_HW >= above - _SAME) & (part_HW >= below - _SAME)
    return both & ((part_HW > above + _SAME) | (part_HW > below + _SAME))


#: Allows for rounding of the means.
_SAME = 1e-5
