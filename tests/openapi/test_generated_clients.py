"""Public generators make clients from the OpenAPI document, and these run a job."""

from __future__ import annotations

import json
import shutil
import subprocess
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from dualprocess import Client
from tests.e2e.stack import Stack, running
from tests.openapi.conftest import ran, written

pytestmark = pytest.mark.long

LORA = "pytorch_lora_weights.safetensors"
SPEC = {
    "prompt": "a circle",
    "questions": [{"question": "Is the circle red?", "answer": "Yes"}],
    "generator": "tiny-flux",
    "vlm": "tiny-idefics2",
    "optimizer": {"steps": 3},
    "eval": {"images": 1, "every": 0},
}
#: It needs another typer than the command line, so it gets an environment of its own.
GENERATOR = "openapi-python-client>=0.29"

PROGRAM = """
import json, sys, time
from generated import Client
from generated.api.artifacts import read_artifact
from generated.api.jobs import read_job, submit_job
from generated.models import Job, JobSpec, JobStatus, Problem

url, spec, name = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
with Client(base_url=url, raise_on_unexpected_status=True) as client:
    wrong = JobSpec.from_dict(spec | {"generator": "tiny-flax"})
    refused = submit_job.sync(client=client, body=wrong)
    assert isinstance(refused, Problem), refused
    assert refused.errors[0].field == "generator", refused
    job = submit_job.sync(client=client, body=JobSpec.from_dict(spec))
    while job.status in (JobStatus.QUEUED, JobStatus.RUNNING):
        time.sleep(0.2)
        job = read_job.sync(job.id, client=client)
    assert isinstance(job, Job)
    assert job.status == JobStatus.SUCCEEDED, job
    file = read_artifact.sync_detailed(job.id, name, client=client)
    print(job.id, job.scores.lora.probability.geometric_mean, len(file.content))
"""

SCRIPT = """
import { client } from "./client/client.gen";
import { readArtifact, readJob, submitJob } from "./client/sdk.gen";
import type { Job, JobSpec } from "./client/types.gen";

async function run(url: string, spec: JobSpec, name: string): Promise<void> {
  client.setConfig({ baseUrl: url });
  const refused = await submitJob({ body: { ...spec, generator: "tiny-flax" } });
  if (refused.error?.errors?.[0]?.field !== "generator") throw new Error("it was not refused");
  const queued = await submitJob({ body: spec, throwOnError: true });
  let job = queued.data as Job;
  while (job.status === "queued" || job.status === "running") {
    await new Promise((later) => setTimeout(later, 200));
    job = (await readJob({ path: { job_id: job.id }, throwOnError: true })).data;
  }
  if (job.status !== "succeeded") throw new Error(job.error ?? job.status);
  const path = { job_id: job.id, name };
  const file = await readArtifact({ path, parseAs: "arrayBuffer", throwOnError: true });
  const right = job.scores?.lora?.probability.geometric_mean;
  console.log(job.id, right, (file.data as unknown as ArrayBuffer).byteLength);
}

void run(process.argv[2]!, JSON.parse(process.argv[3]!) as JobSpec, process.argv[4]!);
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running(tmp_path_factory.mktemp("stack")) as stack:
        yield stack


def arguments(stack: Stack) -> list[str]:
    return [stack.url, json.dumps(SPEC), LORA]


def check(told: str, stack: Stack) -> None:
    """That a program learned what its job came to, and got the LoRA."""
    job_id, right, size = told.split()[-3:]
    with Client(stack.url) as client:
        job = client.job(job_id)
        assert job.scores.lora is not None
        assert float(right) == pytest.approx(job.scores.lora.probability.geometric_mean)
        assert int(size) == len(client.read_artifact(job_id, LORA))


def test_a_python_client_runs_a_job(stack: Stack, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    programs = tmp_path / "venv" / "bin"
    fetched = subprocess.run(
        [programs / "python", "-m", "pip", "install", "--quiet", GENERATOR, "ruff"],
        capture_output=True,
        text=True,
    )
    if fetched.returncode:
        pytest.skip(f"{GENERATOR} can't be had here: {fetched.stderr[-300:]}")
    command = [str(programs / "openapi-python-client"), "generate", "--meta=none"]
    command += [f"--path={written(tmp_path)}", f"--output-path={tmp_path / 'generated'}"]
    ran("env", f"PATH={programs}:/usr/bin:/bin", *command, "--fail-on-warning")
    python = [str(programs / "python"), "-c", PROGRAM]
    check(ran(*python, *arguments(stack), folder=tmp_path), stack)


@pytest.mark.skipif(shutil.which("npm") is None, reason="needs Node with npm")
def test_a_typescript_client_runs_a_job(stack: Stack, node_modules: Path, tmp_path: Path) -> None:
    programs = node_modules / ".bin"
    ran(str(programs / "openapi-ts"), "-i", str(written(tmp_path)), "-o", str(tmp_path / "client"))
    (tmp_path / "job.ts").write_text(SCRIPT)
    (tmp_path / "node_modules").symlink_to(node_modules)
    flags = ["--strict", "--skipLibCheck", "--target", "es2022", "--module", "commonjs"]
    flags += ["--lib", "es2022,dom,dom.iterable,dom.asynciterable", "--types", "node"]
    ran(str(programs / "tsc"), *flags, "--outDir", "built", "job.ts", folder=tmp_path)
    check(ran("node", str(tmp_path / "built" / "job.js"), *arguments(stack)), stack)
