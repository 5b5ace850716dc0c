"""Data set files become one spec for each job."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
import yaml

from dualprocess.cli import datasets
from dualprocess.cli.files import BadFile
from dualprocess.schemas import GuardOptions

RESEARCH = """
question_postfix: "Answer with Yes or No."
opt_repeat: 2
generator: tiny-flux
vlm: tiny-idefics2
dataset:
  - name: man-smile
    prompt: "Photo of a man"
    qa_pairs:
      - question: "Is the man smiling?"
        answer: Yes
  - name: horizon
    prompt: "A beach"
    opt_repeat: 1
    qa_pairs:
      - question: "Does the line meet the horizon?"
        answer: "Yes"
        ref_images: [drawings/line.png]
        overlay_mode: transparent
"""
SPEC = {
    "questions": [{"question": "Is it red?", "answer": "Yes"}],
    "generator": "tiny-flux",
    "vlm": "tiny-idefics2",
}


def written(folder: Path, data: object) -> str:
    file = folder / "set.yaml"
    file.write_text(data if isinstance(data, str) else yaml.safe_dump(data))
    return str(file)


def test_the_research_scripts_format(tmp_path: Path) -> None:
    (tmp_path / "drawings").mkdir()
    (tmp_path / "drawings/line.png").write_bytes(b"a drawing")
    first, second, horizon = datasets.load(written(tmp_path, RESEARCH))
    assert [first.name, second.name] == ["man-smile, seed 100", "man-smile, seed 101"]
    assert (first.prompt, first.optimizer.seed, second.optimizer.seed) == (
        "Photo of a man",
        100,
        101,
    )
    # YAML's true was an unquoted Yes.
    assert first.questions[0].answer == "Yes"
    assert first.question_postfix == "Answer with Yes or No."
    assert (horizon.name, horizon.optimizer.seed) == ("horizon", None)
    drawn = horizon.questions[0].visual_prompt
    assert drawn is not None
    assert (drawn.image, drawn.mode) == (b"a drawing", "transparent")


def test_a_bare_list_takes_its_models_from_the_command_line(tmp_path: Path) -> None:
    entry = {"name": "a", "prompt": "a", "qa_pairs": [{"question": "Red?", "answer": "Yes"}]}
    changes = ["generator=tiny-flux", "vlm=tiny-idefics2", "optimizer.steps=1"]
    (spec,) = datasets.load(written(tmp_path, [entry]), changes)
    assert (spec.generator, spec.optimizer.steps) == ("tiny-flux", 1)
    # Like the paper's script, which adds no postfix if none is written.
    assert spec.question_postfix == ""


def test_one_spec_over_prompts_and_seeds(tmp_path: Path) -> None:
    data = {"spec": SPEC | {"name": "red"}, "prompts": ["a circle", "a square"], "seeds": [7, 9]}
    specs = datasets.load(written(tmp_path, data), ["optimizer.steps=3"])
    assert [(spec.prompt, spec.optimizer.seed, spec.optimizer.steps) for spec in specs] == [
        ("a circle", 7, 3),
        ("a circle", 9, 3),
        ("a square", 7, 3),
        ("a square", 9, 3),
    ]
    assert specs[-1].name == "red, a square, seed 9"


def test_many_specs(tmp_path: Path) -> None:
    data = {"specs": [SPEC | {"prompt": "a circle"}, SPEC | {"prompt": "a square"}]}
    specs = datasets.load(written(tmp_path, data))
    assert [spec.name for spec in specs] == ["a circle", "a square"]


def test_guard_and_weights_come_from_every_form(tmp_path: Path) -> None:
    """Written beside a data set they apply to each entry, and stay as written."""
    off = GuardOptions(anchor=0, margin=1, worst_case=0)
    pairs = [{"question": "Is it red?", "answer": "Yes", "weight": 3}]
    entry = {"name": "a", "prompt": "a", "qa_pairs": pairs, "opt_repeat": 2}
    models = {"generator": "tiny-flux", "vlm": "tiny-idefics2"}
    own = entry | {"guard": {"anchor": 0.3}}
    # YAML reads this off as false.
    data = yaml.safe_dump(models | {"dataset": [entry, own]}) + "guard: off\n"
    found = datasets.load(written(tmp_path, data))
    assert [spec.guard for spec in found] == [off, off, *[GuardOptions(anchor=0.3)] * 2]
    assert {question.weight for spec in found for question in spec.questions} == {3}
    assert found[2].guard.model_fields_set == {"anchor"}

    spec = SPEC | {"guard": {"margin": None}}
    found = datasets.load(written(tmp_path, {"spec": spec, "prompts": ["a", "b"], "repeats": 2}))
    assert [spec.guard for spec in found] == [GuardOptions(margin=1)] * 4
    found = datasets.load(written(tmp_path, {"specs": [spec | {"prompt": "a"}]}), ["guard=off"])
    assert [spec.guard for spec in found] == [off]


def test_an_inline_drawing_is_taken_as_it_is(tmp_path: Path) -> None:
    image = base64.b64encode(b"a drawing").decode()
    question = {"question": "Red?", "answer": "Yes", "ref_images": image}
    data = {"dataset": [{"name": "a", "prompt": "a", "qa_pairs": [question]}]}
    models = {"generator": "tiny-flux", "vlm": "tiny-idefics2"}
    (spec,) = datasets.load(written(tmp_path, data | models))
    assert spec.questions[0].visual_prompt is not None
    assert spec.questions[0].visual_prompt.image == b"a drawing"


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ("just words", "must hold dataset"),
        ({"dataset": []}, "dataset: must be a list of entries"),
        ({"specs": []}, "holds no jobs"),
        (
            {"dataset": [{"name": "a", "qa_pairs": ["Red?"]}]},
            "dataset.0.qa_pairs.0: must be an object",
        ),
        ({"dataset": [{"name": "a", "qa_pairs": 5}]}, "dataset.0.qa_pairs: must be a list"),
        ({"specs": [SPEC | {"questions": 5}]}, "specs.0.questions"),
        ({"dataset": [{"prompt": "a", "opt_repeat": 0}]}, "dataset.0.opt_repeat"),
        ({"dataset": [{"prompt": "a", "pipe_kwargs": {}}]}, "dataset.0.pipe_kwargs"),
        ({"dataset": [{"prompt": "a", "qa_pairs": []}]}, "dataset.0.generator"),
        ({"specs": [SPEC, SPEC | {"steps": 3}]}, "specs.1.steps"),
        ({"specs": [SPEC | {"guard": 3}]}, "specs.0.guard: write off, or an object"),
        (
            {"dataset": [{"prompt": "a", "guard": {"margin": 2}}]},
            "dataset.0.guard.margin: should be less than or equal to 1",
        ),
        (
            {"dataset": [{"qa_pairs": [{"question": "?", "answer": "Yes", "weight": 0}]}]},
            "dataset.0.questions.0.weight: should be greater than 0",
        ),
        ({"spec": SPEC, "seeds": [1], "repeats": 2}, "leave one of them out"),
        ({"spec": SPEC | {"prompt": "a"}, "prompts": ["b"]}, "leave one of them out"),
        (
            {"dataset": [{"qa_pairs": [{"question": "?", "ref_images": ["a.png", "b.png"]}]}]},
            "dataset.0.qa_pairs.0.ref_images",
        ),
    ],
)
def test_what_is_wrong_is_named_by_its_place(tmp_path: Path, data: object, sentence: str) -> None:
    with pytest.raises(BadFile, match=sentence):
        datasets.load(written(tmp_path, data))
