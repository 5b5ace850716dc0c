"""Encoded pictures from a caller: checked before they are decoded, RGB and upright afterwards."""

from __future__ import annotations

import io
import struct

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError, features

from services.common import png_chunks
from services.common.errors import InvalidInput

#: A picture with more pixels is refused because of its header, before it is decoded.
MAX_PIXELS = 4096 * 4096
MAX_SIDE = 8192

#: Formats besides PNG and JPEG, as far as Pillow was built with them.
_MORE = ("GIF", *(name for name in ("WebP", "AVIF") if features.check(name.lower())))
_FORMATS = ("PNG", "JPEG", *(name.upper() for name in _MORE))
_NONE_OF_THEM = f"not a whole PNG or JPEG picture, nor one of {', '.join(_MORE)}"

#: Values of the box ``ftyp`` in files of Apple's telephones.
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx")

#: How to rotate a picture, by EXIF's number for the camera's orientation.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(data: bytes, field: str) -> Image.Image:
    """The RGB picture in the bytes of a file: rotated upright, with white where it is transparent.
    Raises ``InvalidInput`` that begins with ``field``."""
    try:
        image = Image.open(io.BytesIO(png_chunks.without_texts(data)), formats=_FORMATS)
        width, height = image.size
        if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
            raise InvalidInput(
                f"{field}: {width} × {height} pixels are too many; send at most 4096 × 4096 in "
                f"all, and {MAX_SIDE} a side"
            )
        # A JPEG with several pictures is one picture with its previews.
        if getattr(image, "is_animated", False) and image.format != "MPO":
            raise InvalidInput(f"{field}: is an animation; send one picture of it")
        image.load()
    except UnidentifiedImageError as error:
        raise InvalidInput(f"{field}: {_not_known(data)}") from error
    # Pillow raises RuntimeError for what libavif can't decode.
    except (OSError, SyntaxError, ValueError, RuntimeError, Image.DecompressionBombError) as error:
        if isinstance(error, InvalidInput):
            raise
        raise InvalidInput(f"{field}: {_NONE_OF_THEM}: {error}") from error
    upright = _upright(image)
    # Pillow's own conversion would cut 16-bit greys off at 255.
    return _on_white(_eight_bits(upright) if upright.mode.startswith("I") else upright)


def _not_known(data: bytes) -> str:
    if data[4:8] == b"ftyp" and any(brand in data[8:40] for brand in _HEIC_BRANDS):
        return "is a HEIC picture, which is not supported; save it as PNG or JPEG"
    return _NONE_OF_THEM


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except (OSError, SyntaxError, ValueError, LookupError, TypeError, struct.error):
        # A picture with damaged metadata can still be used.
        return image
    method = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return image if method is None else image.transpose(method)


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
    # Where a drawing is transparent, nothing was drawn; white means the same.
    canvas = Image.new("RGBA", image.size, "white")
    canvas.alpha_composite(image.convert("RGBA"))
    return canvas.convert("RGB")
