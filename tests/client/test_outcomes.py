"""What a run of ``dualprocess batch`` finds of the run before."""

from __future__ import annotations

from pathlib import Path

from dualprocess import Job, JobSpec, Question
from dualprocess.cli import outcomes
from tests.client.test_client import JOB


def spec(name: str, prompt: str = "a circle") -> JobSpec:
    return JobSpec(
        name=name,
        prompt=prompt,
        questions=[Question(question="Is it red?", answer="Yes")],
        generator="tiny-flux",
        vlm="tiny-idefics2",
    )


def test_every_job_has_a_folder_of_its_own_inside(tmp_path: Path) -> None:
    names = ["a b", "A/B", "../a b", "...", "ü", "report.html", "x" * 200]
    folders = [one.folder for one in outcomes.outcomes([spec(name) for name in names], tmp_path)]
    assert [folder.parent for folder in folders] == [tmp_path] * len(names)
    assert len({folder.name.lower() for folder in folders} | {"report.html"}) == len(names) + 1


def test_a_record_counts_for_its_spec_only(tmp_path: Path) -> None:
    (outcome,) = outcomes.outcomes([spec("a")], tmp_path)
    outcome.record(Job.model_validate(JOB))
    (again,) = outcomes.outcomes([spec("a")], tmp_path)
    assert again.is_done
    (other,) = outcomes.outcomes([spec("a", "a square")], tmp_path)
    assert other.job is None


def test_a_record_that_was_cut_short_is_none(tmp_path: Path) -> None:
    (outcome,) = outcomes.outcomes([spec("a")], tmp_path)
    outcome.record(Job.model_validate(JOB))
    (file,) = outcome.folder.iterdir()
    file.write_text(file.read_text()[:50])
    (again,) = outcomes.outcomes([spec("a")], tmp_path)
    assert again.job is None


def test_an_interrupted_submission_is_repeated_as_it_was(tmp_path: Path) -> None:
    asked = outcomes.outcomes([spec("a"), spec("b"), spec("b")], tmp_path)
    assert outcomes.interrupted(asked, tmp_path) == ("", [])
    key = outcomes.submission(asked, tmp_path)
    asked[0].record(Job.model_validate(JOB))
    more = outcomes.outcomes([spec("new"), spec("b"), spec("a"), spec("b")], tmp_path)
    again, repeated = outcomes.interrupted(more, tmp_path)
    assert (again, [one.spec.name for one in repeated]) == (key, ["a", "b", "b"])
    assert len({id(one) for one in repeated}) == 3
    assert outcomes.interrupted(more[:3], tmp_path) == ("", [])
    outcomes.submitted(tmp_path)
    assert outcomes.interrupted(more, tmp_path) == ("", [])
