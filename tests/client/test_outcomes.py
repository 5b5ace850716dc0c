"""What a run of ``dualprocess batch`` finds from an earlier run."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

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


#: The name of each folder, without its hash.
FOLDERS = [
    ("a b", "a-b"),
    ("A/B", "A-B"),
    ("../a b", "a-b"),
    ("...", "job"),
    ("👍", "job"),
    ("report.html", "report-html"),
    ("CON", "CON"),
    ('a<b>:"c|d?*\\\n\x1b', "a-b-c-d"),
    ("v_1.5, seed 3", "v_1-5-seed-3"),
    ("ü", "ü"),
    ("u\u0308", "ü"),
    ("Ü", "Ü"),
    ("красный круг", "красный-круг"),
    ("赤い丸", "赤い丸"),
    ("लाल वृत्त", "लाल-वृत्त"),
    ("دائرة حمراء", "دائرة-حمراء"),
    ("x" * 200, "x" * 120),
    ("x" * 199 + "y", "x" * 120),
    ("円" * 200, "円" * 40),
    ("𝒳" * 200, "𝒳" * 30),
]


def test_every_job_has_a_folder_of_its_own_inside(tmp_path: Path) -> None:
    specs = [spec(name) for name, _ in FOLDERS]
    folders = [one.folder for one in outcomes.outcomes(specs, tmp_path)]
    assert [folder.parent for folder in folders] == [tmp_path] * len(folders)
    assert [folder.name[:-13] for folder in folders] == [stem for _, stem in FOLDERS]
    assert max(len(folder.name.encode()) for folder in folders) < 143
    alike = {unicodedata.normalize("NFKC", folder.name).casefold() for folder in folders}
    assert len(alike) == len(folders)


def test_a_job_keeps_its_folder_wherever_it_stands(tmp_path: Path) -> None:
    before = outcomes.outcomes([spec("赤"), spec("青"), spec("青")], tmp_path)
    for number, outcome in enumerate(before):
        outcome.record(Job.model_validate(JOB | {"id": f"{number:026}"}))
    assert len({outcome.folder for outcome in before}) == 3
    after = outcomes.outcomes(
        [spec("緑"), spec("青"), spec("赤"), spec("青"), spec("青")], tmp_path
    )
    ids = [outcome.job.id[-1] if outcome.job else None for outcome in after]
    assert ids == [None, "1", "0", "2", None]
    assert len({outcome.folder for outcome in after}) == 5


@pytest.mark.parametrize("name", ["job", "job-2", "red-circle", "moved by hand"])
def test_a_folder_of_another_name_is_found_by_its_record(tmp_path: Path, name: str) -> None:
    (outcome,) = outcomes.outcomes([spec("赤")], tmp_path)
    outcome.record(Job.model_validate(JOB))
    outcome.folder.rename(tmp_path / name)
    (again,) = outcomes.outcomes([spec("赤")], tmp_path)
    assert (again.is_begun, again.folder) == (True, tmp_path / name)


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
    file.write_bytes(file.read_bytes()[:50])
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
