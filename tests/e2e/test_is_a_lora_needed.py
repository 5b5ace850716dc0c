"""The cheapest way to a wish: the best of many seeds, and what is known before a job."""

from __future__ import annotations

from pathlib import Path

import pytest

from dualprocess import Client, ImagesRequest, Question
from dualprocess.schemas import ImageOptions, Job
from tests.e2e.conftest import red_circle
from tests.e2e.stack import Stack
from tests.e2e.test_commands import RED_CIRCLE, read, run

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


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("a red circle", "nearly nothing to teach"),
        ("a blue circle", "bring the prompt nearer"),
        ("a circle", "the best of many seeds are enough"),
    ],
)
def test_images_of_the_base_say_whether_there_is_something_to_teach(
    client: Client, prompt: str, said: str
) -> None:
    job = circles(client, prompt=prompt, seeds=[0, 1, 2, 3])
    assert job.base is not None
    assert job.scores.base is not None
    assert (job.base.vlm, job.base.images) == ("tiny-idefics2", 4)
    assert job.base.probability == job.scores.base.probability.geometric_mean
    assert job.base.best == job.scores.images[0].probability.geometric_mean
    assert said in str(job.base.advice)


def test_a_job_says_before_it_starts_what_is_known_of_the_base(client: Client) -> None:
    # Its own words, so that no other test has asked for the same.
    spec = red_circle().model_copy(update={"prompt": "one red circle"})
    assert client.dry_run(spec).base is None
    seen = circles(client, prompt="one red circle", seeds=[0, 1, 2, 3])
    assert client.dry_run(spec).base == seen.base
    job = client.submit(spec)
    assert job.base == seen.base
    # Its own evaluation has one image, and says less than the four that were seen.
    assert client.wait(job.id).base == seen.base
    assert client.dry_run(spec).base == seen.base
    # Of other questions, settings or seeds of the training nothing, or the same, is known.
    other = spec.model_copy(update={"questions": [Question(question="Is it red?", answer="Yes")]})
    assert client.dry_run(other).base is None
    larger = spec.model_copy(update={"image": ImageOptions(width=72)})
    assert client.dry_run(larger).base is None
    assert client.dry_run(red_circle(seed=7).model_copy(update={"prompt": spec.prompt})).base


def test_an_ended_job_is_known_to_the_next(client: Client) -> None:
    spec = red_circle(steps=1).model_copy(update={"prompt": "one small circle"})
    job = client.wait(client.submit(spec).id)
    assert job.base is None
    known = client.submit(spec).base
    assert known is not None
    assert known.images == 1
    assert job.scores.base is not None
    assert known.probability == job.scores.base.probability.geometric_mean


def test_a_look_before_the_job_on_the_command_line(stack: Stack) -> None:
    mine = ["submit", RED_CIRCLE, "--set", "prompt=a red disc", "--set", "optimizer.steps=1"]
    assert "base model" not in run(stack, *mine, "--dry-run").stdout
    told = run(stack, *mine, "--look", "--dry-run")
    assert told.exit_code == 0, told.output
    assert "the base model's own score: " in told.stdout
    assert " by tiny-idefics2 on 4 images" in told.stdout
    assert "the base model's own score: " in run(stack, *mine, "--wait").stdout
