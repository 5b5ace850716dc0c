"""How a service logs texts of others."""

from __future__ import annotations

import subprocess
import sys

_CODE = r"""
import logging
from services.common.telemetry import configure_logging

configure_logging("api", "info")
name = "\x1b]0;title\x07a\x9b2Jb\u202ec\n2026-01-01 00:00:00,000 INFO    api forged: no\rline"
logging.getLogger("jobs").info("job %s", name)
try:
    raise ValueError(name)
except ValueError:
    logging.getLogger("jobs").exception("no %s", name)
"""


def test_a_log_has_nothing_that_a_terminal_obeys_and_no_forged_line() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _CODE], capture_output=True, encoding="utf-8", check=True
    )
    assert all(letter.isprintable() or letter == "\n" for letter in done.stderr)
    first, second, *traceback = done.stderr.splitlines()
    assert first.endswith(
        "jobs: job ]0;titlea2Jbc 2026-01-01 00:00:00,000 INFO    api forged: no line"
    )
    assert second.startswith(first[:4])
    assert traceback[0] == "Traceback (most recent call last):"
