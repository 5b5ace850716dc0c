"""The load benchmark runs without errors. No test checks how fast it is."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.timeout(150)
def test_a_small_load_meets_no_error() -> None:
    size = ["--leases=20", "--queued=20", "--streams=10", "--crowd=30", "--hour=20"]
    time = ["--rate=10", "--seconds=1", "--settle=0"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.load", *size, *time],
        capture_output=True,
        text=True,
        timeout=140,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 leases lost" in done.stdout
    assert "30 accepted and 0 refused" in done.stdout.replace("\n", " ")
    assert "errors: 0" in done.stdout
