"""The command line against a running service."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from dualprocess import protocol
from dualprocess.cli import app, specs
from examples.demo import EXAMPLES
from tests.e2e.conftest import LORA_FILE
from tests.e2e.stack import Stack

RED_CIRCLE = str(EXAMPLES / "red-circle.yaml")
SHORT = ["--set", "optimizer.steps=3", "--set", "eval.images=1"]


def run(stack: Stack, *arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, [*arguments, "--url", stack.url], input=stdin)


def read(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def trained(stack: Stack) -> str:
    """The id of a job that a command submitted and watched."""
    job = read(run(stack, "submit", RED_CIRCLE, *SHORT, "--watch", "--json"))
    assert (job["status"], job["steps"], job["name"]) == ("succeeded", 3, "red circle")
    return str(job["id"])


def test_a_watched_job_shows_loss_and_probability(stack: Stack, trained: str) -> None:
    shown = run(stack, "watch", trained)
    assert shown.exit_code == 0
    assert "loss" in shown.stderr
    assert "probability" in shown.stderr
    assert f"job {trained}: succeeded" in shown.stdout
    assert "base → LoRA" in shown.stdout


def test_list_and_show(stack: Stack, trained: str) -> None:
    assert trained in [job["id"] for job in read(run(stack, "list", "--json"))]
    assert trained in [
        job["id"] for job in read(run(stack, "list", "--status", "succeeded", "--json"))
    ]
    assert trained not in [
        job["id"] for job in read(run(stack, "list", "--status", "failed", "--json"))
    ]
    assert trained in run(stack, "list").stdout
    assert LORA_FILE in run(stack, "show", trained).stdout


def test_a_name_with_brackets_is_shown_as_it_is(stack: Stack) -> None:
    named = ["--set", "name='[/x] demo'", "--set", "optimizer.steps=1", "--set", "eval.images=1"]
    watched = run(stack, "submit", RED_CIRCLE, *named, "--watch")
    assert watched.exit_code == 0, watched.output
    assert "[/x] demo" in watched.stderr
    listed = run(stack, "list")
    assert listed.exit_code == 0, listed.output
    assert "[/x]" in listed.stdout


def test_a_list_in_a_pipe_has_whole_states(stack: Stack, trained: str) -> None:
    lines = run(stack, "list").stdout.splitlines()
    assert max(map(len, lines)) <= 80
    (row,) = (line.split() for line in lines if line.startswith(trained))
    assert row[:4] == [trained, "optimize", "succeeded", "3/3"]


def test_pull_brings_every_file(stack: Stack, trained: str, tmp_path: Path) -> None:
    assert run(stack, "pull", trained, "--to", str(tmp_path)).exit_code == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert {LORA_FILE, "samples.png", "loss.png", "metrics.jsonl", "job.json"} <= names
    resolved = json.loads((tmp_path / "job.json").read_text())
    assert resolved["optimizer"]["steps"] == 3


def test_pull_and_delete_tell_programs_what_they_did(stack: Stack, tmp_path: Path) -> None:
    changes = ["--set", "optimizer.steps=1", "--set", "eval.images=1"]
    job = read(run(stack, "submit", RED_CIRCLE, *changes, "--wait", "--json"))
    assert job["status"] == "succeeded"
    pulled = read(run(stack, "pull", job["id"], "--to", str(tmp_path), "--json"))
    assert {file["name"]: file["sha256"] for file in pulled} == {
        file["name"]: file["sha256"] for file in job["artifacts"]
    }
    assert all(Path(file["path"]).stat().st_size == file["bytes"] for file in pulled)
    deleted = read(run(stack, "delete", job["id"], "--json"))
    assert deleted == {"id": job["id"], "deleted": True}
    assert run(stack, "show", job["id"]).exit_code == 2


def test_waiting_is_silent_and_exits_as_the_job_ends(stack: Stack) -> None:
    never = ["--set", "optimizer.steps=5000", "--set", "deadline=1"]
    ended = run(stack, "submit", RED_CIRCLE, *never, "--wait")
    assert ended.exit_code == 1
    assert ended.stderr == ""
    assert "cancelled" in ended.stdout


def test_generate_with_a_lora_and_scores(stack: Stack, trained: str, tmp_path: Path) -> None:
    asked = ["--question", "Is the circle red?", "--answer", "Yes", "--vlm", "tiny-idefics2"]
    loras = ["--lora", f"{trained}:0.5"]
    made = run(
        stack, "generate", "a circle", "--seeds", "3-4", *loras, *asked, "--to", str(tmp_path)
    )
    assert made.exit_code == 0, made.output
    assert "probability of the right answers" in made.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["image-3.png", "image-4.png"]


def test_a_job_from_a_pipe_can_be_cancelled(stack: Stack) -> None:
    text = Path(RED_CIRCLE).read_text()
    job = read(run(stack, "submit", "-", "--set", "optimizer.steps=5000", "--json", stdin=text))
    run(stack, "cancel", job["id"])
    ended = run(stack, "watch", job["id"])
    assert ended.exit_code == 1
    assert f"job {job['id']}: cancelled" in ended.stdout


def test_models_have_live_workers(stack: Stack) -> None:
    listed = read(run(stack, "models", "--json"))
    live = {model["name"]: model["live_workers"] for model in listed["generators"]}
    assert live["tiny-flux"] == 1
    assert "flux-dev" in run(stack, "models").stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["submit", "nowhere.yaml"], "nowhere.yaml"),
        (["submit", RED_CIRCLE, "--set", "optimizer.stepz=3"], "optimizer.stepz"),
        (["submit", RED_CIRCLE, "--set", "optimizer.steps=0"], "optimizer.steps"),
        (["submit", RED_CIRCLE, "--set", "generator=tiny-flax"], "tiny-flux"),
        (["submit", RED_CIRCLE, "--set", "image.width=65"], "64"),
        (["submit", RED_CIRCLE, "--set", "steps"], "optimizer.steps=50"),
        (["show", "0" * 26], "There is no job"),
        (["list", "--api-key", "schlüssel"], "API key"),
        (["generate", "a circle", "--seeds", "x"], "0,1,2 or 0-7"),
        (["generate", "a circle", "--question", "Red?"], "one --answer for each"),
        (["generate", "a circle", "--lora", "abc:heavy"], "loras.0"),
    ],
)
def test_bad_input_is_a_sentence_and_exit_code_2(
    stack: Stack, arguments: list[str], sentence: str
) -> None:
    result = run(stack, *arguments)
    assert result.exit_code == 2
    assert sentence in result.stderr


def test_files_that_cannot_be_written_are_a_sentence(
    stack: Stack, trained: str, tmp_path: Path
) -> None:
    (tmp_path / "taken").touch()
    pulled = run(stack, "pull", trained, "--to", str(tmp_path / "taken"))
    assert (pulled.exit_code, "taken" in pulled.stderr) == (2, True)
    (tmp_path / "batch.yaml").write_text(json.dumps({"specs": [{"prompt": "a"}]}))
    changes = ["--set", 'questions=[{question: "Red?", answer: Yes}]']
    changes += ["--set", "generator=tiny-flux", "--set", "vlm=tiny-idefics2"]
    out = ["--out", str(tmp_path / "taken")]
    batch = run(stack, "batch", str(tmp_path / "batch.yaml"), *changes, *out)
    assert (batch.exit_code, "taken" in batch.stderr) == (2, True)


def test_what_a_job_is_not_ready_for_is_exit_code_2(stack: Stack) -> None:
    job = read(run(stack, "submit", RED_CIRCLE, "--set", "optimizer.steps=5000", "--json"))
    refused = run(stack, "delete", job["id"])
    assert (refused.exit_code, job["id"] in refused.stderr) == (2, True)
    assert run(stack, "cancel", job["id"]).exit_code == 0
    assert run(stack, "watch", job["id"]).exit_code == 1


def test_what_is_no_address_is_exit_code_2() -> None:
    result = CliRunner().invoke(app, ["list", "--url", "http://host:port"])
    assert (result.exit_code, "http://host:port" in result.stderr) == (2, True)


def test_nobody_there_is_exit_code_3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "RETRY_SECONDS", (0.0,))
    result = CliRunner().invoke(app, ["list", "--url", "http://127.0.0.1:9"])
    assert result.exit_code == 3
    assert "dualprocess up" in result.stderr


def test_a_dry_run_tells_how_long_a_job_like_an_earlier_one_runs(
    stack: Stack, trained: str
) -> None:
    told = read(run(stack, "submit", RED_CIRCLE, *SHORT, "--dry-run", "--json"))
    assert 0 < told["time"]["step_seconds"] < told["time"]["seconds"]
    assert told["spec"] == read(run(stack, "show", trained, "--json"))["spec"]
    shown = run(stack, "submit", RED_CIRCLE, *SHORT, "--dry-run").stdout
    assert "noise_seeds: null" in shown
    assert "queue of tiny-flux with tiny-idefics2: 0 before it, 0 running, 1 worker" in shown
    assert "time: about " in shown
    assert "of the same size" in shown


def test_a_dry_run_tells_the_work_and_queues_nothing(stack: Stack, tmp_path: Path) -> None:
    before = read(run(stack, "list", "--json"))
    told = read(run(stack, "submit", RED_CIRCLE, *SHORT, "--dry-run", "--json"))
    assert (told["jobs"], told["quota"]) == (1, None)
    assert told["work"] > 0
    shown = run(stack, "submit", RED_CIRCLE, *SHORT, "--dry-run").stdout
    assert f"1 job, work: {told['work']:,.3f}" in shown
    assert "  training: " in shown

    data = tmp_path / "set.yaml"
    spec = json.dumps(
        specs.load(RED_CIRCLE, SHORT[1::2]).model_dump(mode="json", exclude_unset=True)
    )
    data.write_text(f'{{"specs": [{spec}, {spec}, {spec}]}}', encoding="utf-8")
    out = tmp_path / "out"
    batch = read(run(stack, "batch", str(data), "--out", str(out), "--dry-run", "--json"))
    assert (batch["jobs"], batch["work"]) == (3, pytest.approx(3 * told["work"], abs=0.01))
    images = ["generate", "a circle", "--seeds", "0-3", "--to", str(out), "--dry-run"]
    assert read(run(stack, *images, "--json"))["parts"]["pictures"] == 4 * 64 * 64 / 2**20
    assert not out.exists()
    assert read(run(stack, "list", "--json")) == before
