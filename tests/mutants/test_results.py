"""What ``make mutants`` keeps of a run, and what a later one takes from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.mutants import report
from tests.mutants.mutants import Mutant
from tests.mutants.report import Results, Tried

OPTIONS: dict[str, object] = {"each": 1, "seed": 1}


def mutant(path: str, before: str) -> Mutant:
    return Mutant("worker", path, 7, before, f"not {before}", "", ("tests/test_a.py",))


KILLED = Tried(mutant("a.py", "a"), "killed", 1.0, "tests/test_a.py::test_a")
SURVIVED = Tried(mutant("b.py", "b"), "survived", 1.0)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "mutants.json"
    monkeypatch.setattr(report, "PATH", path)
    monkeypatch.setattr("sys.argv", [str(Path(__file__).with_name("__main__.py")), "--save"])
    Results([KILLED.mutant, SURVIVED.mutant], OPTIONS).save([KILLED, SURVIVED])
    return path


def saved(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def test_what_is_saved_says_how_many_were_killed_and_where_it_comes_from(path: Path) -> None:
    content = saved(path)
    assert content["all"] == content["targets"]["worker"]
    assert (content["all"]["killed"], content["all"]["survived"], content["all"]["share"]) == (
        1,
        1,
        0.5,
    )
    assert content["command"] == "python -m tests.mutants --save"
    assert {"commit", "machine", "date", "options", "goal"} < content.keys()


def test_another_file_stays_as_it_was_saved(path: Path) -> None:
    again = Tried(SURVIVED.mutant, "killed", 1.0, "tests/test_a.py::test_b")
    Results([again.mutant], OPTIONS).save([again])
    rows = {row["file"]: row for row in saved(path)["mutants"]}
    assert rows["a.py"]["by"] == "tests/test_a.py::test_a"
    assert rows["b.py"]["by"] == "tests/test_a.py::test_b"
    assert saved(path)["all"]["share"] == 1


def test_mutants_that_are_not_drawn_any_more_go(path: Path) -> None:
    other = Tried(mutant("b.py", "c"), "killed")
    Results([other.mutant], OPTIONS).save([other])
    assert [row["before"] for row in saved(path)["mutants"]] == ["a", "c"]


def test_only_what_was_killed_is_known_again(path: Path) -> None:
    results = Results([], OPTIONS)
    known = results.killed(KILLED.mutant)
    assert known is not None
    assert (known.how, known.by) == ("killed", KILLED.by)
    assert results.killed(SURVIVED.mutant) is None
    assert results.killed(mutant("a.py", "another line")) is None
