"""A teacher that is no VLM: the example's service, beside a real stack, in jobs of all kinds."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from dualprocess import Client, ImagesRequest, JobFailed, JobSpec
from services.common.presets import DEFAULT_DIRECTORY
from tests.e2e.conftest import losses
from tests.e2e.stack import running


@pytest.fixture(scope="module")
def teacher() -> Iterator[str]:
    """The address of the example's service."""
    command = [sys.executable, "-m", "examples.custom_teacher", "--port", "0"]
    threads = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=threads) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        yield said.split()[-1]
        process.terminate()


@pytest.fixture(scope="module")
def client(teacher: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Of a stack whose presets name the teacher, without weights."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "models").symlink_to(DEFAULT_DIRECTORY.parent / "models")
    for kind, names in (("generators", ["tiny-flux"]), ("vlms", ["tiny-idefics2"])):
        (folder / "presets" / kind).mkdir(parents=True)
        for name in names:
            file = f"{kind}/{name}.yaml"
            (folder / "presets" / file).symlink_to(DEFAULT_DIRECTORY / file)
    (folder / "presets/vlms/colour.yaml").write_text("family: external\n")
    flags = [f"--presets={folder / 'presets'}", f"--teachers=colour={teacher}"]
    with running(tmp_path_factory.mktemp("data"), *flags) as stack, Client(stack.url) as client:
        yield client


def blue(question: str = "Is it blue?", **more: object) -> JobSpec:
    return JobSpec.model_validate(
        {
            "prompt": "a circle",
            "questions": [{"question": question, "answer": "Yes"}],
            "generator": "tiny-flux",
            "vlm": "colour",
            "optimizer": {"steps": 12, "lr": 3e-3},
            "guard": "off",
            "eval": {"images": 2, "every": 0},
        }
        | more
    )


@pytest.mark.long
def test_it_teaches_alone(client: Client) -> None:
    job = client.wait(client.submit(blue()).id)
    curve = losses(client, job.id)
    assert sum(curve[-3:]) < sum(curve[:3])
    base, lora = job.scores.base, job.scores.lora
    assert base is not None
    assert lora is not None
    assert lora.probability.geometric_mean > base.probability.geometric_mean


def test_it_teaches_beside_a_vlm_by_weight_and_is_judged(client: Client) -> None:
    both = [{"name": "tiny-idefics2", "weight": 1}, {"name": "colour", "weight": 3}]
    spec = blue("Is the circle blue?", vlm=both, optimizer={"steps": 2})
    job = client.wait(client.submit(spec).id)
    assert job.vlms == ["tiny-idefics2", "colour"]

    def first(**vlm: object) -> float:
        one = client.submit(blue("Is the circle blue?", optimizer={"steps": 1}, **vlm))
        return losses(client, client.wait(one.id).id)[0]

    apart = [first(vlm=name) for name in ("tiny-idefics2", "colour")]
    assert losses(client, job.id)[0] == pytest.approx((apart[0] + 3 * apart[1]) / 4, rel=1e-4)
    judged = client.wait(
        client.submit(blue(vlm="tiny-idefics2", judge="colour", optimizer={"steps": 1})).id
    )
    assert judged.scores.judge is not None
    assert judged.scores.judge.vlm == "colour"


@pytest.mark.long
def test_it_scores_images_and_is_listed(client: Client) -> None:
    request = {"prompt": "a circle", "generator": "tiny-flux", "vlm": "colour", "wait": 60}
    asked = {"questions": [{"question": "Is it blue?", "answer": "Yes"}], "best_of": 4}
    job = client.generate(ImagesRequest.model_validate(request | asked))
    assert len(job.scores.images) == 1
    (listed,) = [vlm for vlm in client.models().vlms if vlm.name == "colour"]
    assert (listed.family, listed.model, listed.live_workers) == ("external", "", 1)
    assert not listed.writes


def test_what_it_refuses_ends_the_job_with_its_sentence(client: Client) -> None:
    job = client.submit(blue("Is it sharp?"))
    with pytest.raises(JobFailed, match="'Is it sharp\\?': ask about one of red, green, blue"):
        client.wait(job.id)
