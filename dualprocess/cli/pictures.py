"""Pictures on a terminal that can show them: as pixels, or as two coloured half blocks a cell."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from importlib.util import find_spec

from rich.console import Console

#: Of the terminal's cells, at most.
_WIDTH = 72


def painter(console: Console) -> Callable[[bytes], None] | None:
    """Shows encoded pictures on ``console``. ``None`` where that can't be: no terminal, one
    without colours, or without the extra ``pictures``."""
    if not _is_able(console):
        return None
    # Asks the terminal what it can do, once.
    from textual_image.renderable import Image

    def paint(data: bytes) -> None:
        width = min(_WIDTH, console.width)
        console.print(Image(io.BytesIO(data), width=width, height="auto"))

    return paint


def _is_able(console: Console) -> bool:
    # The terminal's answers come through stdin: nothing else may.
    if not (console.is_terminal and sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    if console.is_dumb_terminal or console.no_color or find_spec("textual_image") is None:
        return False
    return os.get_terminal_size(sys.stdout.fileno()).columns > 0
