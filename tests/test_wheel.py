"""What is built from the repository has all that a client needs, in an empty environment."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dualprocess import Client, __version__
from tests.e2e.stack import Stack, running

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[1]
ADDRESS = "http://127.0.0.1:8000"
#: What is no module, and must be in the wheel all the same.
NEEDED = [
    "dualprocess/py.typed",
    *(f"dualprocess/v1/{path.name}" for path in (ROOT / "dualprocess" / "v1").glob("*.pyi")),
    *(str(path.relative_to(ROOT)) for path in (ROOT / "presets").rglob("*.yaml")),
    *(str(path.relative_to(ROOT)) for path in (ROOT / "services").rglob("*.lua")),
]


def ran(*command: str | Path, folder: Path = ROOT) -> str:
    """What the command, which succeeds, prints."""
    # Otherwise the checkout could be found instead of what was installed.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running(tmp_path_factory.mktemp("stack")) as stack:
        yield stack


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, made from the source distribution."""
    out = tmp_path_factory.mktemp("dist")
    ran(sys.executable, "-m", "build", "--outdir", out)
    (wheel,) = out.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with nothing but pip."""
    folder = tmp_path_factory.mktemp("empty")
    venv.create(folder, with_pip=True)
    return folder / "bin" / "python"


def test_the_wheel_holds_everything(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
    assert set(NEEDED) <= names
    assert not {name for name in names if name.startswith(("tests/", "models/", "benchmarks/"))}


def test_it_runs_the_first_lines_of_the_readme_without_torch(
    wheel: Path, python: Path, stack: Stack, tmp_path: Path
) -> None:
    ran(python, "-m", "pip", "install", "--quiet", wheel)
    installed = ran(python, "-m", "pip", "list")
    assert not re.search(r"^(torch|fastapi|redis|mcp)\b", installed, re.MULTILINE), installed
    program = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[0]
    assert ADDRESS in program
    ran(python, "-c", program.replace(ADDRESS, stack.url), folder=tmp_path)
    with Client(stack.url) as client:
        job = next(client.jobs())
        lora = client.read_artifact(job.id, "pytorch_lora_weights.safetensors")
    assert (tmp_path / "red-circle.safetensors").read_bytes() == lora
    told = ran(python.parent / "dualprocess", "version", "--url", stack.url)
    assert told == f"client:  {__version__}\nservice: {__version__}\n"


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs a checkout")
def test_pip_installs_it_from_git(python: Path, tmp_path: Path) -> None:
    flags = ["--quiet", "--no-deps", f"--target={tmp_path / 'site'}"]
    ran(python, "-m", "pip", "install", *flags, f"git+file://{ROOT}")
    missing = [name for name in NEEDED if not (tmp_path / "site" / name).is_file()]
    assert not missing
