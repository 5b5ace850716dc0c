"""SECURITY.md names a test for each promise."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_promise_names_tests_that_exist() -> None:
    text = (ROOT / "SECURITY.md").read_text()
    table = text.partition("| promise | shown by |\n| --- | --- |\n")[2].partition("\n\n")[0]
    for row in table.splitlines():
        tests = re.findall(r"`(tests/[^`]+)`", row)
        assert tests, row
        for test in tests:
            assert (ROOT / test).exists(), test
