"""The TypeScript client: its types are the present API's, and it does a whole job."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from dualprocess import Client
from services.orchestrator.api.openapi import openapi
from tests.e2e.stack import Stack

PACKAGE = Path(__file__).parents[2] / "clients" / "typescript"

pytestmark = pytest.mark.skipif(shutil.which("npm") is None, reason="needs Node with npm")


def ran(*command: str, environment: Mapping[str, str] = {}, stdin: str | None = None) -> str:
    """What the command, which succeeds, prints."""
    done = subprocess.run(
        command,
        cwd=PACKAGE,
        env={**os.environ, **environment},
        input=stdin,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed() -> None:
    """The packages of the lock file; they are fetched once for each lock file."""
    lock, stamp = PACKAGE / "package-lock.json", PACKAGE / "node_modules" / ".package-lock.json"
    if not stamp.is_file() or stamp.stat().st_mtime < lock.stat().st_mtime:
        ran("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")


@pytest.fixture(scope="module")
def compiled(installed: None) -> None:
    ran("npm", "run", "build")
    ran("npm", "run", "programs")


@pytest.mark.usefixtures("installed")
def test_the_committed_types_are_those_of_the_api() -> None:
    types = ran("npm", "run", "--silent", "types", stdin=json.dumps(openapi()))
    assert types == (PACKAGE / "src" / "schema.ts").read_text(), "run make typescript"


@pytest.mark.usefixtures("compiled")
def test_a_whole_job(stack: Stack, client: Client, tmp_path: Path) -> None:
    lora = tmp_path / "red-circle.safetensors"
    told = ran("node", "build/example/red-circle.js", stack.url, str(lora), "3")
    assert told.count("loss") == 3
    job = next(client.jobs())
    assert lora.read_bytes() == client.read_artifact(job.id, "pytorch_lora_weights.safetensors")
    about = {"DUALPROCESS_URL": stack.url, "DUALPROCESS_JOB": job.id}
    ran("npm", "test", environment=about)
