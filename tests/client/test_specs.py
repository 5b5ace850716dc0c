from __future__ import annotations

import re
from pathlib import Path

import pytest

from dualprocess.cli import specs
from dualprocess.cli.files import BadFile
from dualprocess.schemas import JobSpec

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
