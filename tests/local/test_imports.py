"""What a process imports before it is ready is what it needs to be ready."""

from __future__ import annotations

import subprocess
import sys

import pytest

#: For each process: what it imports after its settings are read, as far as no other process is
#: needed, and the packages that it uses later, or never.
PROCESSES = {
    "orchestrator.worker": (
        "",
        ("matplotlib", "tensorboard", "gradio", "torch", "uvicorn", "pandas", "pygments", "scipy"),
    ),
    "orchestrator.api": (
        "from services.orchestrator.api.app import create_app\n"
        "from services.orchestrator.api.settings import ApiSettings\n"
        "create_app(ApiSettings(ui=True))",
        ("gradio", "pandas", "matplotlib", "tensorboard", "torch", "pygments"),
    ),
    "vlm": (
        "import services.vlm.families.idefics2",
        ("diffusers", "bitsandbytes", "boto3", "peft", "redis", "fastapi", "scipy", "pygments"),
    ),
    "generator": (
        "from services.common.imports import import_first\n"
        "with import_first():\n"
        "    import services.generator.families.flux",
        (
            *("bitsandbytes", "boto3", "peft", "redis", "fastapi", "scipy.linalg", "pandas"),
            *("matplotlib", "gradio", "pygments"),
        ),
    ),
    "local": (
        "",
        ("torch", "numpy", "PIL", "fastapi", "uvicorn", "scipy", "opentelemetry.sdk", "pygments"),
    ),
}

#: ``--help`` comes after the imports, and ends the process.
PROGRAM = """
import runpy, sys
sys.argv[1:] = ["--help"]
try:
    runpy.run_module("services.{process}", run_name="__main__")
except SystemExit as end:
    assert not end.code
sys.argv[1:] = []
{then}
print([name for name in {late!r} if sys.modules.get(name) is not None])
"""


@pytest.mark.parametrize("process", PROCESSES)
def test_what_is_used_late_is_imported_late(process: str) -> None:
    then, late = PROCESSES[process]
    program = PROGRAM.format(process=process, then=then, late=late)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
