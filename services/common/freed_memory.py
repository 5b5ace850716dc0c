"""Freed memory stays with the process, for the next message or image of the same size.

By default glibc gives large pieces back to the kernel as soon as they are free, and asks for new
ones: each copy of an image then takes a page fault for every 4 KiB, which costs more than the copy.
"""

from __future__ import annotations

import ctypes
import os

#: From malloc.h: parameters of ``mallopt``, which returns 0 for one that it refuses.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
#: Larger pieces are mapped one by one, and given back when they are freed. It is glibc's maximum.
_MAPPED_BYTES = 32 * 1024 * 1024
#: So much free memory at the end of the heap is kept, beside what is in use.
_KEPT_BYTES = 512 * 1024 * 1024
#: The heap grows by so much at once.
_GROWN_BYTES = 16 * 1024 * 1024

#: Says that a C library is glibc.
_GLIBC = "CS_GNU_LIBC_VERSION"
#: Whoever sets one of these has decided.
_SAYING = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """Sets glibc's thresholds for this process, and says whether they are set. Does nothing with
    another C library, and nothing where the environment sets them."""
    if _GLIBC not in getattr(os, "confstr_names", ()) or any(map(os.environ.get, _SAYING)):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    thresholds = (
        (_M_MMAP_THRESHOLD, _MAPPED_BYTES),
        (_M_TRIM_THRESHOLD, _KEPT_BYTES),
        (_M_TOP_PAD, _GROWN_BYTES),
    )
    return all(mallopt(name, value) for name, value in thresholds)
