"""``make chaos``, briefly. tests/e2e/test_trouble.py is its short form."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.long
@pytest.mark.timeout(300)
def test_whatever_dies_every_job_ends_as_if_nothing_had_happened(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.chaos", "--brief", "--jobs=6", "--minutes=3"]
    done = subprocess.run(
        [*command, f"--data={tmp_path}"], capture_output=True, text=True, timeout=290, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "10 faults injected" in done.stdout
