from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from dualprocess import Client, JobSpec, Question
from dualprocess.schemas import EvalOptions, OptimizerOptions
from tests.e2e.proxies import leading_nowhere
from tests.e2e.stack import Stack, running

LORA_FILE = "pytorch_lora_weights.safetensors"


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One stack on the tiny trained pair for all tests. Its environment names proxies that lead
    nowhere."""
    folder = tmp_path_factory.mktemp("stack")
    with leading_nowhere() as environment, running(folder, environment=environment) as stack:
        yield stack


@pytest.fixture
def client(stack: Stack) -> Iterator[Client]:
    with Client(stack.url) as client:
        yield client


def red_circle(
    *, steps: int = 6, seed: int = 100, checkpoint_every: int = 20, **more: object
) -> JobSpec:
    """A short job: enough to learn a little, quick enough to repeat."""
    return JobSpec(
        prompt="a circle",
        questions=[Question(question="Is the circle red?", answer="Yes")],
        generator="tiny-flux",
        vlm="tiny-idefics2",
        optimizer=OptimizerOptions(
            steps=steps, batch=2, seed=seed, checkpoint_every=checkpoint_every
        ),
        eval=EvalOptions(images=1, every=0),
        **more,  # type: ignore[arg-type]
    )


def losses(client: Client, job_id: str) -> list[float]:
    """The losses of the job's steps."""
    text = client.read_artifact(job_id, "metrics.jsonl").decode()
    return [json.loads(line)["loss"] for line in text.splitlines()]
