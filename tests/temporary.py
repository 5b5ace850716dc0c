"""Folders for what is made once a process, by code that no fixture reaches."""

from __future__ import annotations

import atexit
import shutil
from pathlib import Path
from tempfile import mkdtemp


def temporary_folder(prefix: str) -> Path:
    """A new folder that is removed when the process ends."""
    path = Path(mkdtemp(prefix=prefix))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path
