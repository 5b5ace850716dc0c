"""``dualprocess batch`` against a running service: files, a report, and no work done twice."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import yaml
from typer.testing import CliRunner, Result

from dualprocess import Client, Job
from dualprocess.cli import app
from dualprocess.cli.outcomes import Outcome
from tests.e2e.conftest import LORA_FILE
from tests.e2e.stack import Stack

SHORT = ["--set", "optimizer.steps=1", "--set", "eval.images=2", "--set", "eval.every=0"]


def entry(name: str, prompt: str) -> dict[str, Any]:
    return {
        "name": name,
        "prompt": prompt,
        "qa_pairs": [{"question": "Is the <circle> red?", "answer": "Yes"}],
    }


DATASET: dict[str, Any] = {
    "question_postfix": "Answer with Yes or No.",
    "generator": "tiny-flux",
    "vlm": "tiny-idefics2",
    "dataset": [entry("red circle", "a circle"), entry("red/square & more", "a square")],
}


class Report(HTMLParser):
    """The files that a browser would load with the page, and the text that it would show."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


_HASH = re.compile("-[0-9a-f]{12}$")


def folder(out: Path, name: str) -> Path:
    """The folder of the job with this name."""
    (found,) = (path for path in out.iterdir() if _HASH.sub("", path.name) == name)
    return found


def run(stack: Stack, file: Path, out: Path, *more: str) -> Result:
    arguments = ["batch", str(file), "--out", str(out), *SHORT, "--url", stack.url, *more]
    return CliRunner().invoke(app, arguments)


def jobs_there_are(stack: Stack) -> int:
    with Client(stack.url) as client:
        return sum(1 for _ in client.jobs())


@pytest.fixture(scope="module")
def out(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a data set that ran to its end."""
    made = tmp_path_factory.mktemp("batch")
    (made / "set.yaml").write_text(yaml.safe_dump(DATASET))
    result = run(stack, made / "set.yaml", made / "out", "--watch")
    assert result.exit_code == 0, result.output
    assert "2 jobs: 2 succeeded" in result.stdout
    return made / "out"


def test_each_job_leaves_its_files(out: Path) -> None:
    assert sorted(_HASH.sub("", path.name) for path in out.iterdir()) == [
        "red-circle",
        "red-square-more",
        "report.html",
    ]
    names = {path.name for path in folder(out, "red-circle").iterdir()}
    assert {LORA_FILE, "base-0.png", "lora-1.png", "samples.png", "outcome.json"} <= names
    assert not [name for name in names if name.startswith((".", "preview-"))]


def test_the_report_opens_without_a_server(out: Path) -> None:
    report = Report((out / "report.html").read_text())
    assert len([tag for tag in report.tags if tag == "img"]) == 2 * 4
    for address in report.addresses:
        assert (out / unquote(address)).is_file(), address
    for shown in ("red/square & more", "a square", "Is the <circle> red? Yes", "succeeded"):
        assert shown in report.text
    assert "circle" not in report.tags
    # Questions with their scores, base → LoRA; columns that sort.
    assert report.text.count(" → ") == 2
    assert report.tags.count("button") == 8


def test_what_is_done_is_not_done_again(stack: Stack, out: Path) -> None:
    before = jobs_there_are(stack)
    lora = folder(out, "red-circle") / LORA_FILE
    written = lora.stat().st_mtime_ns
    again = run(stack, out.parent / "set.yaml", out, "--watch", "--json")
    assert again.exit_code == 0, again.output
    told = json.loads(again.stdout)
    assert told["counts"]["succeeded"] == 2
    assert Path(told["report"]) == out / "report.html"
    assert jobs_there_are(stack) == before
    assert lora.stat().st_mtime_ns == written


def test_only_what_is_new_or_lost_is_fetched(stack: Stack, out: Path, tmp_path: Path) -> None:
    before = jobs_there_are(stack)
    lost = folder(out, "red-circle") / "lora-0.png"
    lost.unlink()
    more = DATASET | {"dataset": [*DATASET["dataset"], entry("third", "a circle")]}
    file = tmp_path / "set.yaml"
    file.write_text(yaml.safe_dump(more))
    queued = run(stack, file, out)
    assert queued.exit_code == 0, queued.output
    assert lost.is_file()
    assert jobs_there_are(stack) == before + 1
    ended = run(stack, file, out, "--watch")
    assert "3 jobs: 3 succeeded" in ended.stdout
    assert (folder(out, "third") / LORA_FILE).is_file()
    assert jobs_there_are(stack) == before + 1


def test_a_job_that_ended_badly_is_the_exit_code_and_is_asked_anew(
    stack: Stack, tmp_path: Path
) -> None:
    file = tmp_path / "set.yaml"
    file.write_text(yaml.safe_dump(DATASET))
    # Too short to end well: it fails in the queue, or is stopped.
    hopeless = ["--set", "optimizer.steps=5000", "--set", "deadline=0.001"]
    first, second = [
        run(stack, file, tmp_path / "out", *hopeless, "--watch", "--json") for _ in range(2)
    ]
    assert (first.exit_code, second.exit_code) == (1, 1)
    ids = [{job["id"] for job in json.loads(run_.stdout)["jobs"]} for run_ in (first, second)]
    assert not ids[0] & ids[1]
    # Another spec with the same name is not taken for the earlier one.
    again = run(stack, file, tmp_path / "out", "--watch")
    assert again.exit_code == 0, again.output
    assert "2 jobs: 2 succeeded" in again.stdout


def test_a_bad_data_set_is_a_sentence_and_exit_code_2(stack: Stack, tmp_path: Path) -> None:
    file = tmp_path / "set.yaml"
    file.write_text(yaml.safe_dump(DATASET | {"generator": "tiny-flax"}))
    refused = run(stack, file, tmp_path / "out")
    assert refused.exit_code == 2
    assert "specs.0.generator" in refused.stderr
    assert "tiny-flux" in refused.stderr
    file.write_text("prompt: a circle")
    assert "must hold dataset" in run(stack, file, tmp_path / "out").stderr


def test_an_interrupted_run_queues_no_job_twice(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, out = tmp_path / "set.yaml", tmp_path / "out"
    names = ["interrupted 1", "interrupted 2", "interrupted 3"]
    file.write_text(yaml.safe_dump(DATASET | {"dataset": [entry(n, "a circle") for n in names]}))
    record, recorded = Outcome.record, 0

    def interrupted(self: Outcome, job: Job) -> None:
        nonlocal recorded
        recorded += 1
        if recorded == 2:
            raise KeyboardInterrupt
        record(self, job)

    with monkeypatch.context() as patched:
        patched.setattr(Outcome, "record", interrupted)
        assert run(stack, file, out).exit_code == 130
    assert run(stack, file, out, "--watch").exit_code == 0
    with Client(stack.url) as client:
        assert sorted(job.name or "" for job in client.jobs() if job.name in names) == names
