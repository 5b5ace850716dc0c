from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from dualprocess.cli import specs
from dualprocess.cli.files import BadFile
from dualprocess.schemas import GuardOptions, JobSpec

JOB = """
prompt: a circle
questions: [{question: "Is it red?", answer: "Yes", visual_prompt: {image: drawing.png}}]
generator: tiny-flux
vlm: tiny-idefics2
lora: {start: {file: lora.safetensors}}
"""


def test_files_beside_the_job_file_come_along(tmp_path: Path) -> None:
    for name in ("drawing.png", "lora.safetensors"):
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "job.yaml").write_text(JOB)
    spec = specs.load(str(tmp_path / "job.yaml"))
    drawn = spec.questions[0].visual_prompt
    assert drawn is not None
    assert drawn.image == b"drawing.png"
    assert spec.lora.start is not None
    assert spec.lora.start.file == b"lora.safetensors"


PLAIN = """
prompt: a circle
questions: [{question: "Is it red?", answer: Yes}, {question: "Is it blue?", answer: No}]
generator: tiny-flux
vlm: tiny-idefics2
"""


def loaded(folder: Path, text: str, *changes: str) -> JobSpec:
    (folder / "job.yaml").write_text(text)
    return specs.load(str(folder / "job.yaml"), changes)


def test_an_unquoted_yes_is_the_word(tmp_path: Path) -> None:
    spec = loaded(tmp_path, PLAIN, "questions.1.answer=Yes")
    assert [question.answer for question in spec.questions] == ["Yes", "Yes"]


@pytest.mark.parametrize(
    "change",
    [
        "questions.x.answer=No",
        "questions.5.answer=No",
        "questions.0=No",
        "prompt.x=5",
        "prompt.x.y=5",
        "optimizer.steps=[1",
    ],
)
def test_a_change_that_cannot_be_made_is_named(tmp_path: Path, change: str) -> None:
    with pytest.raises(BadFile, match=re.escape(change.partition("=")[0])):
        loaded(tmp_path, PLAIN, change)


def test_what_is_no_list_of_questions_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="questions: "):
        loaded(tmp_path, PLAIN, "questions=5")


def test_a_drawing_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match=r"questions\.0\.visual_prompt\.image.*drawing\.png"):
        loaded(tmp_path, JOB)


def test_a_short_drawing_in_base64_is_no_path(tmp_path: Path) -> None:
    image = "questions.0.visual_prompt.image=" + "aGVs" * 100
    drawn = loaded(tmp_path, PLAIN, image).questions[0].visual_prompt
    assert drawn is not None
    assert drawn.image == b"hel" * 100


OFF = GuardOptions(anchor=0, margin=1, worst_case=0)


@pytest.mark.parametrize(
    ("change", "written", "guard"),
    [
        ("guard=off", "guard: off", OFF),
        ("guard='off'", "guard: 'off'", OFF),
        ("guard={}", "guard: {}", GuardOptions()),
        ("guard.margin=1", "guard: {margin: 1}", GuardOptions(margin=1)),
        ("guard.margin=null", "guard: {margin: null}", GuardOptions(margin=1)),
        ("guard.anchor=0.3", "guard: {anchor: 0.3}", GuardOptions(anchor=0.3)),
        ("guard.worst_case=0", '{"guard": {"worst_case": 0}}', GuardOptions(worst_case=0)),
    ],
)
def test_a_guard_as_people_write_it(
    tmp_path: Path, change: str, written: str, guard: GuardOptions
) -> None:
    """With --set as in a file. Fields that were not written are not set."""
    block = yaml.safe_dump(yaml.safe_load(PLAIN)) + yaml.safe_dump(yaml.safe_load(written))
    for spec in (loaded(tmp_path, PLAIN, change), loaded(tmp_path, block)):
        assert spec.guard == guard
        assert spec.guard.model_fields_set == guard.model_fields_set


def test_a_part_of_the_guard_is_changed_and_the_rest_stays(tmp_path: Path) -> None:
    guarded = f"{PLAIN}\nguard: {{anchor: 0.4, worst_case: 0.1}}"
    spec = loaded(tmp_path, guarded, "guard.anchor=0.3", "questions.1.weight=2")
    assert spec.guard == GuardOptions(anchor=0.3, worst_case=0.1)
    assert [question.weight for question in spec.questions] == [1, 2]


def test_one_term_of_a_guard_that_is_off_can_be_set(tmp_path: Path) -> None:
    spec = loaded(tmp_path, PLAIN + "guard: off\n", "guard.anchor=0.3")
    assert spec.guard == GuardOptions(anchor=0.3, margin=1, worst_case=0)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("guard=on", "guard: write off, or an object with anchor, margin and worst_case"),
        ("guard=3", "guard: write off, or an object with anchor, margin and worst_case"),
        ("guard=null", "guard: write off, or an object with anchor, margin and worst_case"),
        ("guard.margin=0", "guard.margin: should be greater than 0"),
        ("guard.margin=1.5", "guard.margin: should be less than or equal to 1"),
        ("guard.margin=off", "guard.margin: must be a number, not true or false"),
        ("guard.anchor=-1", "guard.anchor: should be greater than or equal to 0"),
        ("guard.anchor=.inf", "guard.anchor: should be less than or equal to 1000"),
        ("guard.worst_case=2", "guard.worst_case: should be less than or equal to 1"),
        ("guard.anker=1", "guard.anker: is no field of this request; did you mean 'anchor'?"),
        ("questions.0.weight=0", "questions.0.weight: should be greater than 0"),
        ("questions.0.weight=yes", "questions.0.weight: must be a number, not true or false"),
        ("questions.0.wieght=2", "questions.0.wieght: is no field of this request; did you mean"),
    ],
)
def test_a_guard_that_cannot_be_is_named(tmp_path: Path, change: str, sentence: str) -> None:
    with pytest.raises(BadFile, match=re.escape(sentence)):
        loaded(tmp_path, PLAIN, change)
