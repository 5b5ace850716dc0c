"""Makes folders and files that only this user may read: the data folder, and files with secrets."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

#: For a process whose files nobody else may read.
UMASK = 0o077


class NotPrivate(OSError):
    """Others can read the folder, and this process can't change that. The message says why."""


def check_folder(folder: Path) -> None:
    """Raises ``NotPrivate`` if others have rights in the folder. Does not change them."""
    if _others(folder.stat()):
        raise NotPrivate(
            "others on this machine have rights in it, and it holds files that no stack made; if "
            "nobody else needs them, `chmod 700` it"
        )


def make_folder(folder: Path) -> bool:
    """Makes the folder, if needed, and takes away others' rights. Returns whether they had any.

    Raises ``NotPrivate`` if others keep rights in it, and ``OSError`` if it can't be made.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.stat()
    if found.st_uid != os.geteuid():
        raise NotPrivate("it belongs to another user, who can read what is in it")
    if not _others(found):
        return False
    folder.chmod(stat.S_IMODE(found.st_mode) & 0o700)
    if _others(folder.stat()):
        raise NotPrivate("its file system lets others read what is in it")
    return True


def _others(found: os.stat_result) -> int:
    return found.st_mode & (stat.S_IRWXG | stat.S_IRWXO)


def appending(path: Path) -> BinaryIO:
    """Opens a file to append to. If it is new, only this user has rights in it."""
    return os.fdopen(_for_me(str(path), os.O_WRONLY | os.O_APPEND | os.O_CREAT), "ab")


def write_file(path: Path, text: str) -> None:
    """Writes a file, which replaces an older one. At no time can anybody else read it."""
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    with open(part, "x", encoding="utf-8", opener=_for_me) as file:
        file.write(text)
    part.replace(path)


def _for_me(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
