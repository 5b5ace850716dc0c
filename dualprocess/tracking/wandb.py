"""Sends to Weights & Biases, whose own settings say how: ``WANDB_PROJECT``, ``WANDB_MODE=offline``,
…"""

from __future__ import annotations

import os

import wandb

from dualprocess.errors import TrackingFailed
from dualprocess.tracking.record import Record

_PROJECT = "dualprocess"


def log(record: Record) -> str:
    """Makes a run of the record, and returns where it is. Raises ``TrackingFailed``."""
    try:
        return _log(record)
    except wandb.Error as error:
        raise TrackingFailed(f"Weights & Biases: {error}") from error


def _log(record: Record) -> str:
    project = os.environ.get("WANDB_PROJECT") or _PROJECT
    config = {"dualprocess.job": record.job_id, **record.parameters}
    with wandb.init(project=project, name=record.name, config=config) as run:
        for step, measures in record.steps:
            run.log(dict(measures), step=step)
        run.summary.update(dict(record.scores))
        artifact = wandb.Artifact(f"job-{record.job_id}", type="lora")
        for file in record.files:
            artifact.add_file(str(file))
        run.log_artifact(artifact)
    return run.url or f"run {run.id} in {run.dir}"
