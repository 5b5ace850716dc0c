"""Images with LoRAs that no job of the service made: files that come with the request."""

from __future__ import annotations

from pathlib import Path

import pytest

from dualprocess import Client, ImagesRequest
from dualprocess.schemas import ResolvedImagesSpec
from tests.e2e.conftest import LORA_FILE, red_circle
from tests.e2e.stack import Stack
from tests.e2e.test_commands import read, run


@pytest.fixture(scope="module")
def trained(stack: Stack) -> str:
    with Client(stack.url) as client:
        return client.wait(client.submit(red_circle(steps=2)).id).id


def drawn(client: Client, *loras: dict[str, object]) -> tuple[str, bytes]:
    request = {"prompt": "a circle", "generator": "tiny-flux", "loras": loras, "wait": 60}
    job = client.generate(ImagesRequest.model_validate(request))
    return job.id, client.read_artifact(job.id, "image-0.png")


def test_a_file_draws_as_its_job_does(client: Client, trained: str) -> None:
    file = client.read_artifact(trained, LORA_FILE)
    by_job = {"job": trained, "weight": 0.5}
    _, as_job = drawn(client, {"job": trained}, by_job)
    made, as_file = drawn(client, {"file": file}, by_job)
    assert as_file == as_job
    _, base = drawn(client)
    assert base != as_job
    # The file stays with the images, and can be used from there.
    assert client.read_artifact(made, "lora-0.safetensors") == file
    spec = client.job(made).spec
    assert isinstance(spec, ResolvedImagesSpec)
    assert [use.job for use in spec.loras] == [made, trained]
    _, again = drawn(client, *(use.model_dump() for use in spec.loras))
    assert again == as_job


def test_a_file_on_the_command_line(stack: Stack, trained: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.safetensors"
    with Client(stack.url) as client:
        client.download(trained, LORA_FILE, file)
    for name, lora in (("job", trained), ("file", str(file))):
        to = ["--to", str(tmp_path / name)]
        read(run(stack, "generate", "a circle", "--lora", f"{lora}:0.8", *to, "--json"))
    pictures = [(tmp_path / name / "image-0.png").read_bytes() for name in ("job", "file")]
    assert pictures[0] == pictures[1]
    assert [path.name for path in (tmp_path / "file").iterdir()] == ["image-0.png"]
    missing = run(stack, "generate", "a circle", "--lora", "nowhere.safetensors:0.8")
    assert (missing.exit_code, "can't read nowhere.safetensors" in missing.stderr) == (2, True)
