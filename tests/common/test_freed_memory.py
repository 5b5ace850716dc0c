"""A process keeps freed memory where the C library is glibc, and starts as well where it is not."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from services.common.freed_memory import keep_freed_memory

COPIES, SIDE = 20, 1024
#: Takes and frees memory as a service does that copies images, and counts page faults.
PROGRAM = f"""
import resource
from services.common.freed_memory import keep_freed_memory
kept = keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def copy():
    bytes(bytearray(3 * 2 * {SIDE} * {SIDE}))
for _ in range(3):
    copy()
before = faults()
for _ in range({COPIES}):
    copy()
print(int(kept), faults() - before)
"""
HAS_GLIBC = "CS_GNU_LIBC_VERSION" in getattr(os, "confstr_names", ())


def started(**variables: str) -> tuple[bool, int]:
    """Whether thresholds were set, and the page faults of the copies."""
    clean = {name: value for name, value in os.environ.items() if "MALLOC" not in name}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=clean | variables, capture_output=True, check=True
    )
    kept, faults = done.stdout.split()
    return bool(int(kept)), int(faults)


@pytest.mark.skipif(not HAS_GLIBC, reason="needs glibc")
def test_copies_of_images_take_no_page_faults_once_the_memory_is_there() -> None:
    kept, faults = started()
    assert kept
    # One image alone has 1536 pages.
    assert faults < 100


def test_what_the_environment_sets_stays() -> None:
    kept, _ = started(MALLOC_TRIM_THRESHOLD_="131072")
    assert not kept


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "confstr_names", {"CS_PATH": 0})
    assert not keep_freed_memory()
    # Where there is no confstr at all.
    monkeypatch.delattr(os, "confstr_names")
    assert not keep_freed_memory()
