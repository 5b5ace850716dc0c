"""Every example job file, on the tiny pair, since the paper's models are too large for a test."""

from __future__ import annotations

from pathlib import Path

import pytest

from dualprocess import Client, JobStatus
from dualprocess.cli import specs
from examples.demo import EXAMPLES

pytestmark = pytest.mark.timeout(240)

FILES = sorted([*EXAMPLES.glob("*.yaml"), *EXAMPLES.glob("paper/*.yaml")])
#: Short jobs, with the settings that the tiny pair needs.
CHANGES = [
    "generator=tiny-flux",
    "vlm=tiny-idefics2",
    "optimizer.steps=1",
    "eval.images=1",
    "eval.every=0",
    "image.width=64",
    "image.height=64",
]


def test_each_file_is_a_job_that_runs(client: Client) -> None:
    jobs = {path: client.submit(specs.load(str(path), CHANGES)) for path in FILES}
    assert len(jobs) >= 15
    for path, job in jobs.items():
        ended = client.wait(job.id)
        assert (ended.status, ended.step) == (JobStatus.SUCCEEDED, 1), _name(path)
        assert ended.scores.lora is not None, _name(path)
        [asked] = ended.scores.lora.questions
        assert 0 < asked.probability.geometric_mean < 1, _name(path)


def _name(path: Path) -> str:
    return str(path.relative_to(EXAMPLES))
