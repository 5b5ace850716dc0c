"""Sends to MLflow, whose own settings say where it is: ``MLFLOW_TRACKING_URI``,
``MLFLOW_EXPERIMENT_NAME``, …"""

from __future__ import annotations

import time

import mlflow
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException

from dualprocess.errors import TrackingFailed
from dualprocess.tracking.record import Record

#: Limits of one request to MLflow's server.
_MEASURES_AT_ONCE = 1000


def log(record: Record) -> str:
    """Makes a run of the record, and returns where it is. Raises ``TrackingFailed``."""
    try:
        return _log(record)
    except MlflowException as error:
        raise TrackingFailed(f"MLflow: {error}") from error


def _log(record: Record) -> str:
    now = int(time.time() * 1000)
    measures = [
        Metric(name, value, now, step)
        for step, values in record.steps
        for name, value in values.items()
    ]
    with mlflow.start_run(run_name=record.name, tags={"dualprocess.job": record.job_id}) as run:
        mlflow.log_params(dict(record.parameters))
        client = mlflow.MlflowClient()
        for begin in range(0, len(measures), _MEASURES_AT_ONCE):
            client.log_batch(run.info.run_id, measures[begin : begin + _MEASURES_AT_ONCE])
        mlflow.log_metrics(dict(record.scores))
        for file in record.files:
            mlflow.log_artifact(str(file))
    return f"run {run.info.run_id} at {mlflow.get_tracking_uri()}"
