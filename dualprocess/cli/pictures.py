"""Pictures on a terminal that can show them: as pixels, or as two coloured half blocks per cell."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from importlib.util import find_spec

from rich.console import Console

#: At most this many cells of the terminal.
_WIDTH = 72


def painter(console: Console) -> Callable[[bytes], None] | None:
    """A function that shows encoded pictures on ``console``. ``None`` if that is not possible: it
    is no terminal, has no colours, or the extra ``pictures`` is not installed."""
    if not _is_able(console):
        return None
    # The import asks the terminal once what it can do.
    from textual_image.renderable import Image

    def paint(data: bytes) -> None:
        width = min(_WIDTH, console.width)
        console.print(Image(io.BytesIO(data), width=width, height="auto"))

    return paint


def _is_able(console: Console) -> bool:
    # The terminal answers on stdin, so stdin must be the terminal.
    if not (console.is_terminal and sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    if console.is_dumb_terminal or console.no_color or find_spec("textual_image") is None:
        return False
    return os.get_terminal_size(sys.stdout.fileno()).columns > 0
