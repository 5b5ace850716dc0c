"""The cheapest way to what somebody asks: the best of many seeds, and what is known before a job."""

from __future__ import annotations

from pathlib import Path

import pytest

from dualprocess import Client, ImagesRequest, Question
from dualprocess.schemas import Job
from tests.e2e.stack import Stack
from tests.e2e.test_commands import read, run

RED = [Question(question="Is the circle red?", answer="Yes")]
ASKED = ["--question", "Is the circle red?", "--answer", "Yes", "--vlm", "tiny-idefics2"]


def circles(client: Client, **changes: object) -> Job:
    request = {"prompt": "a circle", "generator": "tiny-flux", "questions": RED}
    return client.generate(
        ImagesRequest.model_validate(request | {"vlm": "tiny-idefics2", "wait": 60} | changes)
    )


def test_the_best_of_many_seeds_are_kept_and_ranked(client: Client) -> None:
    everything = circles(client, seeds=[5, 0, 1, 2, 3, 4, 6, 7])
    scores = {one.seed: one.probability.geometric_mean for one in everything.scores.images}
    ranking = sorted(scores, key=lambda seed: -scores[seed])
    assert [one.seed for one in everything.scores.images] == ranking
    assert scores[ranking[0]] > scores[ranking[-1]]

    # Three seeds are named; the others count up from the largest.
    best = circles(client, seeds=[2, 0, 1], best_of=8)
    assert [one.seed for one in best.scores.images] == ranking[:3]
    assert {file.name for file in best.artifacts} == {f"image-{seed}.png" for seed in ranking[:3]}
    for seed in ranking[:3]:
        name = f"image-{seed}.png"
        assert client.read_artifact(best.id, name) == client.read_artifact(everything.id, name)
    # The base's own score is that of all that were drawn, so choosing does not flatter it.
    base, mean = best.scores.base, sum(scores.values()) / len(scores)
    assert base is not None
    assert base.probability.geometric_mean == pytest.approx(mean, rel=1e-6)
    assert best.scores.images[0].probability.geometric_mean > mean


def test_the_best_of_many_on_the_command_line(stack: Stack, tmp_path: Path) -> None:
    asked = [*ASKED, "--seeds", "0-1", "--best-of", "6", "--to", str(tmp_path)]
    job = Job.model_validate(read(run(stack, "generate", "a circle", *asked, "--json")))
    assert {path.name for path in tmp_path.iterdir()} == {
        f"image-{one.seed}.png" for one in job.scores.images
    }
    shown = run(stack, "generate", "a circle", *asked).stdout
    ranked = [shown.index(f"seed {one.seed}: ") for one in job.scores.images]
    files = [shown.index(f"image-{one.seed}.png") for one in job.scores.images]
    assert sorted(ranked + files) == ranked + files
    refused = run(stack, "generate", "a circle", "--best-of", "6")
    assert (refused.exit_code, "best_of: needs questions" in refused.stderr) == (2, True)
