"""What `submit --dry-run` prints for a person."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from dualprocess import Client
from dualprocess.cli import app, session
from tests.client.test_client import JOB

SPEC = {
    "prompt": "a circle",
    "questions": [{"question": "Is it red?", "answer": "Yes"}],
    "generator": "tiny-flux",
    "vlm": "tiny-idefics2",
}
QUEUE = {"generator": "tiny-flux", "vlms": ["tiny-idefics2"], "waiting": 3, "running": 2}
TOLD = {"jobs": 1, "work": 12.5, "parts": {"training": 10.0, "teaching": 2.5}, "spec": JOB["spec"]}


@pytest.mark.parametrize(
    ("answer", "lines"),
    [
        (
            {"queues": [QUEUE | {"workers": 1}]},
            ["queue of tiny-flux with tiny-idefics2: 3 before it, 2 running, 1 worker"],
        ),
        ({"queues": [QUEUE | {"workers": 0}]}, ["2 running, no live worker"]),
        (
            {"time": {"seconds": 5400.0, "step_seconds": 50.0, "basis": "Measured on 2 jobs."}},
            ["time: about 1 h 30 min, 50 s a step", "  Measured on 2 jobs."],
        ),
        (
            {"time": {"seconds": 95.0, "step_seconds": None, "basis": "Scaled."}},
            ["time: about 2 min\n"],
        ),
        ({"time": {"basis": "No job has ended here yet."}}, ["  No job has ended here yet."]),
        ({"warnings": ["The prompt is cut."]}, ["warning: The prompt is cut."]),
        (
            {"refused": {"title": "The quota is used up", "status": 429, "detail": "Wait."}},
            ["refused for now: The quota is used up: Wait."],
        ),
    ],
)
def test_it_has_a_line_for_each_thing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answer: dict[str, Any], lines: list[str]
) -> None:
    def client(url: str, api_key: str | None) -> Client:
        transport = httpx.MockTransport(lambda _: httpx.Response(200, json=TOLD | answer))
        return Client(url, api_key, transport=transport)

    monkeypatch.setattr(session, "Client", client)
    (tmp_path / "job.json").write_text(json.dumps(SPEC))
    shown = CliRunner().invoke(app, ["submit", str(tmp_path / "job.json"), "--dry-run"])
    assert shown.exit_code == 0
    for line in ["1 job, work: 12.500", "  training: 10.000", "seeds:", *lines]:
        assert line in shown.stdout
    if "time" not in answer:
        assert "time: " not in shown.stdout
