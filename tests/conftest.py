"""The order of the tests: what takes longest begins first, so that two processes end together."""

from __future__ import annotations

from pathlib import Path

import pytest

#: Files by how long they take, the longest first.
_LONGEST = (
    "e2e/test_learning.py",
    "chaos/test_chaos.py",
    "e2e/test_mcp.py",
    "e2e/test_custom_teacher.py",
    "e2e/test_notebook.py",
    "e2e/test_trouble.py",
    "ui/test_page.py",
    "e2e/test_lora_forms.py",
    "e2e/test_examples.py",
    "fuzz/test_rest.py",
    "ui/test_keys.py",
    "e2e/test_traces.py",
    "e2e/test_sweep.py",
    "e2e/test_commands.py",
    "e2e/test_proxies.py",
    "benchmarks/test_load.py",
)
_TESTS = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {_TESTS / name: place for place, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))
