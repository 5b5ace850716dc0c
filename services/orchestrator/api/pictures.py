"""Pictures that come with a request."""

from __future__ import annotations

import io

from services.common import pictures
from services.common.errors import InvalidInput

#: An upload, encoded.
MAX_BYTES = 10 * 1024 * 1024


def plain_png(data: bytes, field: str) -> bytes:
    """The pixels and nothing else: metadata of an upload goes no further.

    Raises ``InvalidInput`` that begins with ``field``.
    """
    if len(data) > MAX_BYTES:
        raise InvalidInput(f"{field}: has {len(data) >> 20} MiB; send at most 10 MiB")
    buffer = io.BytesIO()
    pictures.decode(data, field).save(buffer, "PNG")
    return buffer.getvalue()
