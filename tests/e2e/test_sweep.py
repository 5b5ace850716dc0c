"""Sweeps against a running service: a job for each combination, the trade-off, and early ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from dualprocess import Client
from dualprocess.schemas import BatchRequest, JobStatus, ResolvedJobSpec
from tests.e2e.conftest import LORA_FILE, red_circle
from tests.e2e.stack import Stack
from tests.e2e.test_batch import run

SPEC: dict[str, Any] = {
    "name": "red",
    "questions": [{"question": "Is the circle red?", "answer": "Yes"}],
    "generator": "tiny-flux",
    "vlm": "tiny-idefics2",
}
SWEEP = {"optimizer.lr": [1e-8, "3e-3"], "guard.anchor": [0, 0.8]}


def written(folder: Path, **data: Any) -> Path:
    file = folder / "set.yaml"
    file.write_text(yaml.safe_dump({"spec": SPEC} | data, sort_keys=False))
    return file


@pytest.mark.long
def test_each_combination_is_a_job_and_the_report_shows_the_trade_off(
    stack: Stack, tmp_path: Path
) -> None:
    file, out = written(tmp_path, prompts=["a circle"], sweep=SWEEP), tmp_path / "out"
    ended = run(stack, file, out, "--watch", "--json", "--set", "optimizer.steps=6")
    assert ended.exit_code == 0, ended.output
    jobs = {job["name"]: job for job in json.loads(ended.stdout)["jobs"]}
    assert list(jobs) == [
        f"red, a circle, lr {lr}, anchor {anchor}"
        for lr in ("1e-08", "3e-3")
        for anchor in (0, 0.8)
    ]
    for name, job in jobs.items():
        assert job["spec"]["optimizer"]["lr"] == (1e-8 if "1e-08" in name else 3e-3)
        assert job["spec"]["guard"]["anchor"] == (0 if name.endswith("anchor 0") else 0.8)
    numbers = {
        name: (job["scores"]["lora"]["probability"]["geometric_mean"], job["scores"]["drift"])
        for name, job in jobs.items()
    }
    best = {
        name
        for name, (score, drift) in numbers.items()
        if not any(
            other[0] >= score and other[1] <= drift and other != (score, drift)
            for other in numbers.values()
        )
    }
    report = (out / "report.html").read_text()
    assert "a circle: score by the teacher against drift" in report
    assert report.count('class="best"') == report.count('class="unbeaten"') == len(best)
    assert report.count('class="mark"') == len(jobs) - len(best)
    for name in best:
        assert f"<td>{name}<div" in report


@pytest.mark.long
def test_the_worse_half_ends_early_with_what_it_learned(stack: Stack, tmp_path: Path) -> None:
    # The first learns nothing; the second soon has the right answers.
    sweep = {"optimizer.lr": [1e-8, 2e-3]}
    file, out = written(tmp_path, prompts=["a circle"], sweep=sweep), tmp_path / "out"
    steps = ["--set", "optimizer.steps=100", "--set", "guard=off"]
    ended = run(stack, file, out, "--watch", "--halve", "--json", *steps)
    assert ended.exit_code == 0, ended.output
    worse, better = json.loads(ended.stdout)["jobs"]
    assert (better["status"], better["step"]) == ("succeeded", 100)
    assert worse["status"] == "cancelled"
    assert 50 <= worse["step"] < 100
    assert LORA_FILE in {file["name"] for file in worse["artifacts"]}
    assert "ended early by --halve: at step 50" in (out / "report.html").read_text()
    # It is not submitted again, though it was cancelled.
    again = run(stack, file, out, "--watch", "--halve", "--json", *steps)
    assert again.exit_code == 0, again.output
    assert [job["id"] for job in json.loads(again.stdout)["jobs"]] == [worse["id"], better["id"]]


def test_the_sdk_sweeps_too(client: Client) -> None:
    spec = red_circle(steps=1, name="mine").model_copy(update={"prompt": None})
    request = BatchRequest.model_validate(
        {
            "spec": spec.model_dump(exclude_unset=True, exclude={"prompt"}),
            "prompts": ["a circle", "a square"],
            "sweep": {"lora.rank": [2, 4], "questions.0.weight": [1, 2]},
            "seeds": [1, 2],
        }
    )
    assert client.dry_run(request).jobs == 16
    batch = client.submit_batch(request)
    names = [entry.name for entry in batch.jobs]
    assert names[:3] == [
        "mine, a circle, rank 2, weight 1, seed 1",
        "mine, a circle, rank 2, weight 1, seed 2",
        "mine, a circle, rank 2, weight 2, seed 1",
    ]
    assert len(set(names)) == batch.size == 16
    last = client.job(batch.jobs[-1].id).spec
    assert isinstance(last, ResolvedJobSpec)
    assert (last.prompts, last.lora.rank, last.optimizer.seed) == (["a square"], 4, 2)
    assert last.questions[0].weight == 2
    assert client.cancel_batch(batch.id).counts[JobStatus.QUEUED] == 0


@pytest.mark.parametrize(
    ("sweep", "sentence"),
    [
        ({"optimizer.lrr": [1]}, "optimizer.lrr: is no field of this request; did you mean 'lr'"),
        ({"optimizer.lr": [0.1, 7]}, "optimizer.lr: should be less than or equal to 1"),
        ({"optimizer.lr": []}, "sweep.optimizer.lr: is empty"),
        ({"generator.size": [1]}, "sweep.generator.size: the spec has no such place"),
        ({"prompt": ["a", "b"]}, "prompt can't be swept; use prompts"),
        ({"optimizer.seed": [1, 2]}, "optimizer.seed can't be swept; use seeds or repeats"),
        ({"lora.rank": [*range(1, 60)], "lora.alpha": [*range(1, 60)]}, "makes 3,481 jobs"),
    ],
)
def test_a_bad_sweep_is_a_sentence(
    stack: Stack, tmp_path: Path, sweep: dict[str, Any], sentence: str
) -> None:
    refused = run(stack, written(tmp_path, prompts=["a"], sweep=sweep), tmp_path / "out")
    assert refused.exit_code == 2
    assert sentence in refused.stderr


def test_halving_needs_somebody_who_compares(stack: Stack, tmp_path: Path) -> None:
    file = written(tmp_path, prompts=["a circle"], sweep=SWEEP)
    refused = run(stack, file, tmp_path / "out", "--halve")
    assert (refused.exit_code, "--halve: needs --watch" in refused.stderr) == (2, True)
