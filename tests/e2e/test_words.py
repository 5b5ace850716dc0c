"""Words of the tiny VLM, on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dualprocess.cli import app
from tests.e2e.stack import Stack


def run(stack: Stack, *arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments, "--url", stack.url])


@pytest.fixture(scope="module")
def circle(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A picture of a red circle, as the tiny generator draws it."""
    folder: Path = tmp_path_factory.mktemp("circle")
    made = run(stack, "generate", "a red circle", "--seeds", "0", "--to", str(folder))
    assert made.exit_code == 0, made.output
    return str(folder / "image-0.png")


def test_the_vlm_describes_an_image_and_stops(stack: Stack, circle: str) -> None:
    described = run(stack, "ask", circle)
    assert described.exit_code == 0, described.output
    (line,) = described.stdout.splitlines()
    assert "red circle" in line
    # Without the token that ended its answers in training it would babble on.
    assert line.count("circle") == 1


def test_it_answers_each_question(stack: Stack, circle: str) -> None:
    questions = ["Is the circle red?", "Is the circle blue?"]
    asked = run(stack, "ask", circle, *questions, "--postfix", "Answer with Yes or No.", "--json")
    assert json.loads(asked.stdout) == {"answers": ["Yes", "No"]}
    newest = json.loads(run(stack, "list", "--json").stdout)[0]
    assert newest["kind"] == "answers"
    shown = run(stack, "show", newest["id"])
    assert shown.stdout.splitlines()[1:3] == ["Yes", "No"]


def test_what_the_vlm_refuses_can_not_be(stack: Stack, circle: str) -> None:
    refused = run(stack, "ask", circle, "What is <image>?")
    assert refused.exit_code == 2
    assert "questions.0: '<image>' is a control token of this model; leave it out" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["questions", "a circle", "--vlm", "tiny-idefics2"], 2, "too small a model to write"),
        (["expand", "a circle"], 2, "DUALPROCESS_LLM_BASE_URL"),
        (["expand", "a circle", "--vlm", "idefics2", "--wait", "0"], 3, "shows its result later"),
        (["questions", "a circle", "--count", "0"], 2, "count"),
        (["questions", "a circle", "--drawing", "nowhere.png"], 2, "nowhere.png: No such file"),
        (["ask", __file__], 2, "PNG or JPEG"),
    ],
)
def test_what_can_not_be_is_a_sentence_and_an_exit_code(
    stack: Stack, arguments: list[str], code: int, sentence: str
) -> None:
    result = run(stack, *arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert sentence in result.stderr
