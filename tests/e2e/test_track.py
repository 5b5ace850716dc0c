"""Jobs in MLflow and in Weights & Biases: the real packages, each with a folder of its own."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dualprocess import Client, ImagesRequest
from dualprocess.cli import app
from tests.e2e.conftest import LORA_FILE, losses, red_circle
from tests.e2e.stack import Stack


@pytest.fixture(scope="module")
def job_id(stack: Stack) -> str:
    with Client(stack.url) as client:
        return client.wait(client.submit(red_circle(steps=2, name="tracked")).id).id


def track(stack: Stack, job_id: str, to: str) -> Result:
    return CliRunner().invoke(app, ["track", job_id, "--to", to, "--url", stack.url])


def test_mlflow_has_the_curves_and_the_lora(
    stack: Stack, client: Client, job_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "circles")
    told = track(stack, job_id, "mlflow")
    assert told.exit_code == 0, told.output
    tracker = mlflow.MlflowClient()
    (run,) = tracker.search_runs([tracker.get_experiment_by_name("circles").experiment_id])
    assert run.info.run_id in told.stdout
    assert (run.info.run_name, run.info.status) == ("tracked", "FINISHED")
    assert run.data.tags["dualprocess.job"] == job_id
    assert run.data.params["optimizer.steps"] == "2"
    assert run.data.params["question_1"] == "Is the circle red?"
    kept = tracker.get_metric_history(run.info.run_id, "loss")
    assert [point.value for point in kept] == losses(client, job_id)
    lora = client.job(job_id).scores.lora
    assert lora is not None
    assert run.data.metrics["score_lora"] == lora.probability.geometric_mean
    assert run.data.metrics["score_drift"] == client.job(job_id).scores.drift
    assert len(tracker.get_metric_history(run.info.run_id, "drift")) == 2
    file = tracker.download_artifacts(run.info.run_id, LORA_FILE, str(tmp_path))
    assert Path(file).read_bytes() == client.read_artifact(job_id, LORA_FILE)


def test_wandb_keeps_a_run_offline(
    stack: Stack, job_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    told = track(stack, job_id, "wandb")
    assert told.exit_code == 0, told.output
    (kept,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    wanted = (
        "tracked",
        job_id,
        "Is the circle red?",
        "probability_1",
        "score_lora",
        "score_drift",
        LORA_FILE,
    )
    # wandb's own process writes the file, the last of it a moment after the command has ended.
    end = time.monotonic() + 30
    while missing := [what for what in wanted if what.encode() not in kept.read_bytes()]:
        assert time.monotonic() < end, missing
        time.sleep(0.2)


def test_what_has_no_curve_is_refused_with_a_sentence(stack: Stack, client: Client) -> None:
    images = client.generate(ImagesRequest(prompt="a circle", generator="tiny-flux"))
    told = track(stack, images.id, "mlflow")
    assert told.exit_code == 1
    assert "only training jobs" in told.stderr
    running = client.submit(red_circle(steps=5000))
    told = track(stack, running.id, "mlflow")
    client.cancel(running.id)
    assert told.exit_code == 1
    assert "waits for its end" in told.stderr


def test_a_tracker_that_is_not_installed_is_named(
    stack: Stack, job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dualprocess.cli.track.find_spec", lambda name: None)
    told = track(stack, job_id, "wandb")
    assert told.exit_code == 2
    assert "pip install 'dualprocess[wandb]'" in told.stderr
