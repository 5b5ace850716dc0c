"""What the service is for: a LoRA that does what was asked, by pixels that no model judged."""

from __future__ import annotations

import pytest

from dualprocess import Client, LoraUse
from dualprocess.cli import specs
from examples.demo import EXAMPLES, success

pytestmark = pytest.mark.timeout(240)


def test_circles_become_red(client: Client) -> None:
    job = client.wait(client.submit(specs.load(str(EXAMPLES / "red-circle.yaml"))).id)
    assert job.scores.base is not None
    assert job.scores.lora is not None
    base, lora = job.scores.base.probability, job.scores.lora.probability
    assert base.geometric_mean < 0.5 < 0.9 < lora.geometric_mean
    assert success(client, job, []) < 0.5
    assert success(client, job, [LoraUse(job=job.id)]) >= 0.9
    # At weight 0 a LoRA changes nothing.
    assert success(client, job, [LoraUse(job=job.id, weight=0)]) < 0.5
