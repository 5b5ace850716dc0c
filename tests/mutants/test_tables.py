"""The tables of ``make mutants`` name existing code. Whether tests notice, the command itself
shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutants.equivalent import EQUIVALENT, Equivalent
from tests.mutants.mistakes import MISTAKES, Mistake
from tests.mutants.targets import TARGETS, Target

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_the_files_of_each_target_are_there(target: Target) -> None:
    assert [path for path in (*target.files, *target.tests) if not (ROOT / path).is_file()] == []


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.becomes or "-")
def test_each_mistake_has_one_place_and_tests(mistake: Mistake) -> None:
    assert (ROOT / mistake.path).read_text().count(mistake.text) == 1, "rewrite the row"
    assert mistake.becomes != mistake.text
    assert [path for path in mistake.tests if not (ROOT / path).is_file()] == []


@pytest.mark.parametrize("row", EQUIVALENT, ids=lambda row: f"{row.path} {row.line}")
def test_each_equivalent_line_is_there(row: Equivalent) -> None:
    lines = [line.strip() for line in (ROOT / row.path).read_text().splitlines()]
    assert row.line in lines, "rewrite the row, or remove it"


def test_every_script_of_the_queue_has_a_mistake() -> None:
    scripts = {path.name for path in (ROOT / "services/orchestrator/store").glob("*.lua")}
    assert scripts == {Path(one.path).name for one in MISTAKES if one.path.endswith(".lua")}
