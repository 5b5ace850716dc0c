"""What a tracker gets of a job."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx

from dualprocess import Client
from dualprocess.tracking import record
from services.common.presets import GUARD, load_presets
from services.orchestrator.api.resolve import resolve_job
from tests.client.test_client import JOB, SPEC

PROBABILITY = {"joint": 0.25, "geometric_mean": 0.5}
STEPS: list[dict[str, Any]] = [
    {
        "step": 1,
        "steps": 2,
        "loss": 1.5,
        "probability": PROBABILITY,
        "questions": [{"question": "Is it red?", "answer": "Yes", "probability": PROBABILITY}],
        "grad_norm": 2.0,
        "drift": 0.25,
        "diversity": None,
    },
    {"step": 2, "steps": 2, "reason": "the loss (nan) or its gradient is not finite"},
]
SCORE = {"probability": PROBABILITY, "correct": 1.0, "questions": []}
#: One image, so there is no diversity; and scores are missing, which must be no measurements.
SCORES = {
    "judge": {"vlm": "idefics2", "base": SCORE, "lora": SCORE, "gap": 0.125},
    "drift": 0.75,
}


def test_a_skipped_step_is_no_point_of_a_curve(tmp_path: Path) -> None:
    metrics = "".join(f"{json.dumps(step)}\n" for step in STEPS)
    artifact = {
        "name": "metrics.jsonl",
        "media_type": "application/jsonl",
        "bytes": len(metrics),
        "sha256": "",
    }
    spec = resolve_job(SPEC, load_presets()).model_dump(mode="json")
    job = JOB | {"kind": "optimize", "spec": spec, "artifacts": [artifact], "scores": SCORES}

    def handle(request: httpx.Request) -> httpx.Response:
        is_file = request.url.path.endswith("metrics.jsonl")
        return httpx.Response(200, text=metrics) if is_file else httpx.Response(200, json=job)

    with Client("http://service", transport=httpx.MockTransport(handle)) as client:
        found = record.read(client, job["id"], tmp_path)
    measures = {"loss": 1.5, "grad_norm": 2.0, "probability": 0.5, "probability_1": 0.5}
    assert found.steps == [(1, measures | {"drift": 0.25})]
    assert found.scores == {
        "score_judge_base": 0.5,
        "score_judge_lora": 0.5,
        "judge_gap": 0.125,
        "score_drift": 0.75,
    }
    assert found.parameters["guard.anchor"] == f"{GUARD.anchor:g}"
    assert found.parameters["optimizer.lr"] == "0.0005"
    assert (found.parameters["question_1"], found.parameters["answer_1"]) == ("Is it red?", "Yes")


def test_a_tracker_is_told_no_name_that_a_terminal_obeys(tmp_path: Path) -> None:
    hostile = "\x1b]0;x\x07me\u202e\x9b2J"
    spec = resolve_job(SPEC, load_presets()).model_dump(mode="json")
    spec["prompts"] = [hostile]
    spec["questions"][0] |= {"question": hostile, "answer": hostile}
    job = JOB | {"kind": "optimize", "spec": spec, "name": hostile}
    transport = httpx.MockTransport(lambda request: httpx.Response(200, json=job))
    with Client("http://service", transport=transport) as client:
        found = record.read(client, job["id"], tmp_path)
    shown = "]0;xme2J"
    assert found.name == shown
    assert (found.parameters["question_1"], found.parameters["answer_1"]) == (shown, shown)
    assert all(value.isprintable() for value in found.parameters.values())
