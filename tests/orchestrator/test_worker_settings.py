"""Settings of a worker that must fit each other."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from services.orchestrator.worker.settings import WorkerSettings


def test_a_worker_looks_four_times_in_a_lease_or_more_often() -> None:
    def settings(**seconds: float) -> WorkerSettings:
        return WorkerSettings.model_validate({"generator": "here:1", "vlms": {}, **seconds})

    assert settings(lease_seconds=1, poll_seconds=0.25).poll_seconds == 0.25
    with pytest.raises(ValidationError, match="at most a quarter of --lease-seconds"):
        settings(lease_seconds=0.9)
