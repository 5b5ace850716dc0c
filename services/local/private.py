"""What only this user may read: the data folder, and files with secrets in it."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

#: Of a process whose files are nobody else's.
UMASK = 0o077


class NotPrivate(OSError):
    """A folder that others can read, whatever is done here. The message says why."""


def check_folder(folder: Path) -> None:
    """For a folder whose rights are not ours to change. Raises ``NotPrivate``."""
    if _others(folder.stat()):
        raise NotPrivate(
            "others on this machine have rights in it, and it holds what no stack made: "
            "`chmod 700` it where nobody else needs it"
        )


def make_folder(folder: Path) -> bool:
    """Makes it, for this user alone. Whether others had rights in it until now.

    Raises ``NotPrivate`` where they keep them, and ``OSError`` where there can't be such a folder.
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
    """A file to write at the end of; a new one is this user's alone."""
    return os.fdopen(_for_me(str(path), os.O_WRONLY | os.O_APPEND | os.O_CREAT), "ab")


def write_file(path: Path, text: str) -> None:
    """Writes a file that never was anybody else's to read, in place of an older one."""
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    with open(part, "x", encoding="utf-8", opener=_for_me) as file:
        file.write(text)
    part.replace(path)


def _for_me(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
