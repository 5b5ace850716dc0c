"""The service's purpose: a LoRA that does what was asked and changes nothing else, measured by
pixels without a model. In a quarter of the preset's steps, which are four times as large and so
hold a little less; `make demo` shows the preset's own."""

from __future__ import annotations

import numpy as np
import pytest

from dualprocess import Client, LoraUse
from dualprocess.cli import specs
from examples.demo import EXAMPLES, drawn, pixels, red_circles, success
from models.training.measure import measure
from models.training.unasked import MEASURES, diversity, unasked

pytestmark = pytest.mark.timeout(300)


def test_circles_become_red_and_nothing_else_changes(client: Client) -> None:
    changes = ["optimizer.steps=80", "optimizer.lr=2e-3"]
    spec = specs.load(str(EXAMPLES / "red-circle.yaml"), changes)
    job = client.wait(client.submit(spec).id)
    assert job.scores.base is not None
    assert job.scores.lora is not None
    base_score, lora_score = job.scores.base.probability, job.scores.lora.probability
    assert base_score.geometric_mean < 0.5 < 0.9 < lora_score.geometric_mean

    base, lora = (pixels(drawn(client, job, use)) for use in ([], [LoraUse(job=job.id)]))
    assert red_circles(base) < 0.5
    assert red_circles(lora) >= 0.95
    assert np.mean([measure(image) is not None for image in lora]) >= 0.97
    assert diversity(base, lora) >= 0.85
    kept = unasked(base, lora)
    assert kept is not None
    for name in MEASURES:
        assert 0.8 <= kept.moved[name].spread <= 1.2, name
        assert kept.moved[name].move <= 0.7, name

    # The job's own measurements of its few pictures agree.
    assert job.scores.drift is not None
    assert job.scores.diversity is not None
    assert 0 < job.scores.drift < 1
    assert job.scores.diversity > 0.85
    assert job.warnings == []

    # At weight 0 a LoRA changes nothing.
    assert success(client, job, [LoraUse(job=job.id, weight=0)]) < 0.5
