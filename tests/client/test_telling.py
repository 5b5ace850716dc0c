"""What the command line shows a person about jobs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from rich.console import Console
from rich.progress import Progress
from typer.testing import CliRunner

from dualprocess import Client, Job
from dualprocess.cli import app, watching
from dualprocess.schemas import EventRecord
from services.common.presets import load_presets
from services.orchestrator.api.resolve import resolve_job
from tests.client.test_client import JOB, SPEC
from tests.client.test_tracking import STEPS

WARNING = "Images of different seeds have become alike."


def score(probability: float) -> dict[str, Any]:
    value = {"joint": probability, "geometric_mean": probability}
    asked = {"question": "Is it red?", "answer": "Yes", "probability": value}
    return {"probability": value, "correct": 1.0, "questions": [asked]}


def learned(**changes: Any) -> dict[str, Any]:
    """A job that has learned, as the API shows it."""
    spec = SPEC.model_copy(
        update={"questions": [SPEC.questions[0].model_copy(update={"weight": 2.5})]}
    )
    return JOB | {
        "kind": "optimize",
        "vlms": ["tiny-idefics2"],
        "name": "a red circle",
        "step": 200,
        "steps": 200,
        "loss": 0.012,
        "spec": resolve_job(spec, load_presets()).model_dump(mode="json"),
        "scores": {
            "base": score(0.123),
            "lora": score(0.987),
            "judge": {"vlm": "idefics2", "base": score(0.1), "lora": score(0.4), "gap": 0.587},
            "drift": 0.7654,
            "diversity": 0.4321,
        },
        "warnings": [WARNING],
        **changes,
    }


def told(monkeypatch: pytest.MonkeyPatch, job: dict[str, Any], *arguments: str) -> str:
    """The output of a command for a service that has only this job."""

    def handle(request: httpx.Request) -> httpx.Response:
        page = {"jobs": [job], "next": None}
        return httpx.Response(200, json=page if request.url.path == "/v1/jobs" else job)

    @contextlib.contextmanager
    def connected(*_: Any) -> Iterator[Client]:
        with Client("http://service", transport=httpx.MockTransport(handle)) as client:
            yield client

    monkeypatch.setattr("dualprocess.cli.jobs.connected", connected)
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_job_tells_what_else_it_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = told(monkeypatch, learned(), "show", "0" * 26).splitlines()
    assert "probability of the right answers, base → LoRA: 0.123 → 0.987" in lines
    assert "the judge idefics2, base → LoRA: 0.100 → 0.400" in lines
    assert "question with weight 2.5: Is it red? Yes" in lines
    assert f"warning: {WARNING}" in lines
    (drift,) = (line for line in lines if line.startswith("drift"))
    (diversity,) = (line for line in lines if line.startswith("diversity"))
    (gap,) = (line for line in lines if line.startswith("gap"))
    assert "0.765" in drift
    assert "0.432" in diversity
    assert "0.587" in gap


def test_what_was_not_measured_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = {"base": score(0.1), "lora": score(0.9), "drift": 0.0}
    spec = resolve_job(SPEC, load_presets()).model_dump(mode="json")
    job = learned(scores=scores, warnings=[], spec=spec)
    shown = told(monkeypatch, job, "show", "0" * 26)
    assert "drift: 0.000" in shown
    for word in ("diversity", "judge", "gap", "warning", "weight"):
        assert word not in shown


def test_a_list_in_a_pipe_has_drift_and_diversity_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = told(monkeypatch, learned(), "list").splitlines()
    assert max(map(len, lines)) <= 80
    (at,) = (number for number, line in enumerate(lines) if line.startswith("0" * 26))
    assert lines[at].split()[1:4] == ["optimize", "succeeded", "200/200"]
    assert lines[at].split()[6:8] == ["0.77", "0.43"]
    # Step above loss, base above LoRA.
    assert lines[at + 1].split()[:2] == ["0.012", "0.987"]


@pytest.mark.parametrize(("width", "has_room"), [(80, False), (140, True)])
def test_a_watched_step_tells_drift_where_there_is_room(width: int, has_room: bool) -> None:
    step = STEPS[0] | {"drift": 0.25, "diversity": 0.75, "type": "step", "attempt": 1}
    timings = dict.fromkeys(("forward", "vlm", "wire", "backward", "total"), 0.0)
    record = EventRecord.model_validate({"id": "1-0", "event": step | {"timings": timings}})
    console = Console(width=width, record=True, force_terminal=True)
    with Progress(*watching.columns(), console=console) as progress:
        task = progress.add_task("a job", total=2, measures="", state="running")
        watching.show(progress, task, record)
    assert ("drift 0.25  diversity 0.75" in console.export_text()) is has_room


def test_a_job_of_before_has_none_of_it() -> None:
    """Jobs that an older service stored can be read."""
    scores = Job.model_validate(JOB | {"scores": {"base": score(0.1)}}).scores
    assert (scores.drift, scores.diversity) == (None, None)
