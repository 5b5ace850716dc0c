"""Encoded pictures from a caller: checked before they are decoded, RGB afterwards."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from services.common.errors import InvalidInput

#: A picture of more is refused by its header, before it is decoded.
MAX_PIXELS = 4096 * 4096
MAX_SIDE = 8192


def decode(data: bytes, field: str) -> Image.Image:
    """The RGB picture in PNG or JPEG bytes. Raises ``InvalidInput`` that begins with ``field``."""
    try:
        image = Image.open(io.BytesIO(data), formats=("PNG", "JPEG"))
        width, height = image.size
        if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
            raise InvalidInput(
                f"{field}: {width} × {height} pixels are too many; send at most 4096 × 4096 in "
                f"all, and {MAX_SIDE} a side"
            )
        image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, InvalidInput):
            raise
        raise InvalidInput(f"{field}: not a whole PNG or JPEG picture: {error}") from error
    # Pillow's own conversion would cut 16-bit greys off at 255.
    return _on_white(_eight_bits(image) if image.mode.startswith("I") else image)


def _eight_bits(grey: Image.Image) -> Image.Image:
    greys_HW = np.asarray(grey)
    # Rounded division by 65535 / 255.
    scaled = Image.fromarray(((greys_HW.astype(np.uint32) + 128) // 257).astype(np.uint8))
    transparent = grey.info.get("transparency")
    if transparent is not None:
        scaled.putalpha(Image.fromarray(greys_HW != transparent).convert("L"))
    return scaled


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    # Nothing was drawn where a drawing is transparent: that is what white means.
    canvas = Image.new("RGBA", image.size, "white")
    canvas.alpha_composite(image.convert("RGBA"))
    return canvas.convert("RGB")
