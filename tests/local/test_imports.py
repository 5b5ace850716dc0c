"""What a process imports before it is ready is what it needs to be ready."""

from __future__ import annotations

import subprocess
import sys

import pytest

#: For each process: what it does until it is ready, as far as no other process is needed, and
#: the packages that it uses later, or never.
PROCESSES = {
    "worker": (
        "import services.orchestrator.worker.app",
        ("matplotlib", "tensorboard", "gradio", "torch", "uvicorn"),
    ),
    "api": (
        "from services.orchestrator.api.app import create_app\n"
        "from services.orchestrator.api.settings import ApiSettings\n"
        "create_app(ApiSettings(ui=True))",
        ("gradio", "pandas", "matplotlib", "tensorboard", "torch"),
    ),
    "vlm": (
        "import services.vlm.servicer, services.vlm.families.idefics2",
        ("diffusers", "peft", "accelerate", "torch._dynamo", "scipy", "redis", "fastapi"),
    ),
    "generator": (
        "import services.generator.servicer, services.generator.families.flux",
        ("fastapi", "matplotlib", "gradio", "pandas"),
    ),
    "local": ("import services.local.__main__", ("torch", "numpy", "PIL", "fastapi", "uvicorn")),
}


@pytest.mark.parametrize("process", PROCESSES)
def test_what_is_used_late_is_imported_late(process: str) -> None:
    begin, late = PROCESSES[process]
    program = f"{begin}\nimport sys\nprint([name for name in {late!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
