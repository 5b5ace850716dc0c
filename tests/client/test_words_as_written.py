"""Texts in job files, data sets and ``--set`` stay as written; everything else is YAML."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dualprocess.cli import datasets, specs
from dualprocess.cli.files import BadFile
from dualprocess.schemas import GuardOptions, JobSpec

JOB = """
prompt: {text}
questions:
  - question: {text}
    answer: {text}
question_postfix: {text}
generator: tiny-flux
vlm: tiny-idefics2
name: {text}
image:
  negative_prompt: {text}
metadata:
  {text}: {text}
"""
DATA_SETS = [
    """
generator: tiny-flux
vlm: tiny-idefics2
question_postfix: {text}
image: {{negative_prompt: {text}}}
metadata: {{{text}: {text}}}
dataset:
  - name: {text}
    prompt: {text}
    qa_pairs: [{{question: {text}, answer: {text}}}]
""",
    """
- name: {text}
  generator: tiny-flux
  vlm: tiny-idefics2
  question_postfix: {text}
  image: {{negative_prompt: {text}}}
  metadata: {{{text}: {text}}}
  prompt: {text}
  qa_pairs: [{{question: {text}, answer: {text}}}]
""",
]
DATA_SETS.append("specs:" + DATA_SETS[1].replace("qa_pairs", "questions"))

#: YAML would read each of these as something else.
WORDS = [
    *("off", "On", "NO", "yes", "Yes", "True", "FALSE", "y", "null", "~", "Null"),
    *("42", "-1", "+3", "010", "0x10", "0o7", "0b1", "1_000", "1.50", "1e3", ".5", ".inf", ".nan"),
    *("2024-01-01", "2024-13-45", "2024-01-01 10:00:00", "12:30", "1:30:00", "="),
    *("50%", "a's", "it's 5:30", "C#", "a -- b", "größer", "赤い丸", "👍", "…"),
]


def told(spec: JobSpec) -> set[str | None]:
    (question,) = spec.questions
    return {
        *(spec.prompt, question.question, question.answer, spec.question_postfix, spec.name),
        *(spec.image.negative_prompt, *spec.metadata, *spec.metadata.values()),
    }


@pytest.mark.parametrize("word", WORDS)
def test_a_word_of_a_file_stays_as_written(tmp_path: Path, word: str) -> None:
    (tmp_path / "job.yaml").write_text(JOB.format(text=word), encoding="utf-8")
    assert told(specs.load(str(tmp_path / "job.yaml"))) == {word}
    for text in DATA_SETS:
        (tmp_path / "set.yaml").write_text(text.format(text=word), encoding="utf-8")
        (spec,) = datasets.load(str(tmp_path / "set.yaml"))
        assert told(spec) == {word}


#: These would need quotes in a file.
CHANGES = [
    *(
        *WORDS,
        "<<",
        "a circle # red",
        "#5",
        "&a b",
        "*a",
        "!a b",
        "[a",
        "[a, b]",
        "{a",
        "{a: b}",
        "@a",
    ),
    *("%a", "`a`", "a: b", "a:", "- a", "? a", "| a", "> a", "a\nb: c", "a=b", '"a"', "'a' b"),
    *('"a', "a\tb", "--- a", "..."),
]
PATHS = ["prompt", "questions.0.answer", "question_postfix", "name", "metadata.a"]


@pytest.fixture
def plain(tmp_path: Path) -> str:
    (tmp_path / "plain.yaml").write_text(JOB.format(text="x"))
    return str(tmp_path / "plain.yaml")


@pytest.mark.parametrize("word", CHANGES)
def test_what_is_set_stays_as_written(plain: str, word: str) -> None:
    spec = specs.load(plain, [f"{path}={word}" for path in PATHS])
    told = [spec.prompt, spec.questions[0].answer, spec.question_postfix, spec.name]
    assert [*told, spec.metadata["a"]] == [word] * len(PATHS)


OFF = GuardOptions(anchor=0.0, margin=1.0, worst_case=0.0)
VALUES: list[tuple[str, str, Any]] = [
    ("optimizer.steps=5 # fewer", "optimizer.steps", 5),
    ("optimizer.timestep=first", "optimizer.timestep", "first"),
    ("optimizer.noise_seeds=null", "optimizer.noise_seeds", None),
    ("optimizer={steps: 5, lr: 1e-4}", "optimizer.lr", 1e-4),
    ("guard=off", "guard", OFF),
    ("guard={anchor: 2}", "guard.anchor", 2.0),
    ("judge=null", "judge", None),
    ("judge=on", "judge", "on"),
    ("vlm=42", "vlm", "42"),
    ("vlm=[{name: on, weight: 2}]", "vlm.0.name", "on"),
    ("lora.init=kaiming", "lora.init", "kaiming"),
    ("lora.target_modules=[on, to_q]", "lora.target_modules", ["on", "to_q"]),
    ("lora.start.job=01234567890123456789012345", "lora.start.job", "01234567890123456789012345"),
    ("prompts=[on, 3, 'a: b']", "prompts", ["on", "3", "a: b"]),
    ("questions=[{question: 1, answer: No}]", "questions.0.answer", "No"),
    ("metadata={on: off}", "metadata.on", "off"),
    # Nothing is written: the field is left out, or is an empty text if that has a meaning.
    ("name=", "name", None),
    ("prompt=", "prompt", None),
    ("image.negative_prompt=", "image.negative_prompt", ""),
    ("question_postfix=", "question_postfix", ""),
    ("metadata.a=", "metadata.a", ""),
]


@pytest.mark.parametrize(("change", "path", "value"), VALUES, ids=[row[0] for row in VALUES])
def test_what_is_no_text_is_yaml(plain: str, change: str, path: str, value: Any) -> None:
    found: Any = specs.load(plain, [change])
    for part in path.split("."):
        if isinstance(found, list):
            found = found[int(part)]
        else:
            found = found[part] if isinstance(found, dict) else getattr(found, part)
    assert found == value


def test_quotes_are_told_to_be_part_of_a_text() -> None:
    changes = ['prompt="a"', "questions.0.answer='Yes'", "name=a", 'vlm=[{name: "a"}]', '"=b']
    assert list(specs.in_quotes(changes)) == ["prompt", "questions.0.answer"]


def job(text: str) -> str:
    return JOB.format(text="x").replace("prompt: x", f"prompt: {text}", 1)


FILES = [
    (job('"off"'), "off"),
    (job("'a # b'"), "a # b"),
    (job("|\n  a: b\n  # c"), "a: b\n# c"),
    (job(">-\n  on\n  off"), "on off"),
    (job("one\n  2"), "one 2"),
    (job("!!str 5"), "5"),
    (job("a # a comment is none of it"), "a"),
    (job("&p off\nmetadata: {b: *p}").replace("metadata:\n  x: x", ""), "off"),
    (job("off").replace("metadata:\n  x: x", "metadata: {'<<': a, b: <<}"), "off"),
    ("\ufeff" + job("on"), "on"),
    (job("on").replace("\n", "\r\n"), "on"),
    (
        json.dumps({"prompt": "👍\t\x7f", "questions": [{"question": "?", "answer": "off"}]}),
        "👍\t\x7f",
    ),
]


@pytest.mark.parametrize(("text", "prompt"), FILES)
def test_yaml_and_json_are_read_as_they_are_meant(tmp_path: Path, text: str, prompt: str) -> None:
    (tmp_path / "job").write_bytes(text.encode())
    models = ["generator=tiny-flux", "vlm=tiny-idefics2"]
    assert specs.load(str(tmp_path / "job"), models).prompt == prompt


def test_what_is_merged_is_there_and_gives_way(tmp_path: Path) -> None:
    entries = """
generator: tiny-flux
vlm: tiny-idefics2
dataset:
  - &first {name: on, prompt: off, qa_pairs: [{question: a, answer: No}]}
  - {<<: *first, name: 2}
  - {<<: [{prompt: 3}, *first]}
"""
    (tmp_path / "set.yaml").write_text(entries)
    found = datasets.load(str(tmp_path / "set.yaml"), ["questions.0.answer=yes"])
    assert [(spec.name, spec.prompt) for spec in found] == [
        ("on", "off"),
        ("2", "off"),
        ("on", "3"),
    ]
    assert {spec.questions[0].answer for spec in found} == {"yes"}


REFUSED = [
    (job("&a red circle"), "line 2: &a is an anchor.*in quotes"),
    (job("*a"), "line 2.*alias.*in quotes"),
    (job("!a b"), "line 2: !a is a tag.*in quotes"),
    (job("! b"), "line 2: ! is a tag.*in quotes"),
    (job("!!omap b"), "line 2.*in quotes"),
    (job("[a, b]"), "line 2: YAML takes this for a list.*in quotes"),
    (job("{a: b}"), "line 2: YAML takes this.*in quotes"),
    (job("[a] b"), "line 2.*in quotes"),
    (job("a: b"), "line 2.*in quotes"),
    (job("@a"), "line 2.*in quotes"),
    (job("%a"), "line 2.*in quotes"),
    (job("- a"), "line 2.*in quotes"),
    (job("x") + "deadline: 2024-13-45", "line 14: 2024-13-45 can't be read"),
    (job("x") + "prompt: y", "line 14: prompt stands here twice"),
    (job("x") + "? [a]\n: b", "line 14: a list or mapping can't be the name"),
    (job("x").replace("answer: x", "answer: x\n    answer: y"), "line 6: answer stands here twice"),
    (
        '{"prompt": "a",\n "metadata": {"a": "{", "b": "c", "a": "d"}}',
        "line 2: a stands here twice",
    ),
    ('{"prompt": 42, "questions": []}', "prompt: .*put it in quotes"),
    ('{"prompt": true, "questions": [{"question": 1.5}]}', "question: .*put it in quotes"),
    ("a: &a [*a]", "holds itself"),
    ("a: &a {b: {<<: *a}}", "<< needs"),
    ("[" * 5000, "nested too deep"),
    ('{"a":' * 5000, "nested too deep"),
    (
        "a: &a [x, x]\n"
        + "\n".join(f"a{n}: &a{n} [*a{n - 1 or ''}, *a{n - 1 or ''}]" for n in range(1, 40)),
        "repeat too much",
    ),
]


@pytest.mark.parametrize(("text", "sentence"), REFUSED)
def test_what_can_not_be_meant_is_refused_with_line_and_remedy(
    tmp_path: Path, text: str, sentence: str
) -> None:
    (tmp_path / "job.yaml").write_text(text)
    with pytest.raises(BadFile, match=sentence):
        specs.load(str(tmp_path / "job.yaml"))
