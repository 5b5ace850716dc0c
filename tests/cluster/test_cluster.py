"""``make cluster``, briefly."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.network import impossible


@pytest.mark.long
@pytest.mark.timeout(420)
def test_hosts_come_and_go_and_every_job_ends_as_if_nothing_had_happened(tmp_path: Path) -> None:
    if fault := impossible():
        pytest.skip(fault)
    command = [sys.executable, "-m", "tests.cluster", "--brief", "--jobs=6", "--minutes=6"]
    done = subprocess.run(
        [*command, f"--data={tmp_path / 'data'}"],
        capture_output=True,
        text=True,
        timeout=410,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "7 things happened" in done.stdout
