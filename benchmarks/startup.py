"""How long ``dualprocess up`` with the tiny pair takes to be ready, by how long its generator alone
takes on the same machine; and how many modules each process has imported when it is ready.

In turn, so that both see the same machine.
"""

from __future__ import annotations

import asyncio
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.step import running
from services.local.ports import free_port

ROUNDS = 3
#: What each process imports before it is ready, and how.
PROCESSES = {
    "generator": (
        "with import_first('scipy'):\n"
        "    import transformers.modeling_utils\n"
        "with import_first():\n"
        "    import services.generator.service, services.generator.families.flux"
    ),
    "vlm": "with import_first('scipy'):\n    import services.vlm.service",
    "api": (
        "with import_first():\n"
        "    from services.orchestrator.api.app import create_app\n"
        "    from services.orchestrator.api.service import ApiSettings\n"
        "create_app(ApiSettings(ui=True))"
    ),
    "worker": "with import_first():\n    import services.orchestrator.worker.service",
    "up": "import dualprocess.cli\nwith import_first():\n    import services.local.service",
}
#: The command of this Python's environment.
UP = [str(Path(sys.executable).with_name("dualprocess")), "up"]


def measure() -> dict[str, Any]:
    rounds = [(_stack_seconds(), asyncio.run(_generator_seconds())) for _ in range(ROUNDS)]
    return {
        "stack_seconds": round(min(stack for stack, _ in rounds), 2),
        "generator_seconds": round(min(alone for _, alone in rounds), 2),
        "to_generator": round(statistics.median(stack / alone for stack, alone in rounds), 2),
        "modules": {name: modules(program) for name, program in PROCESSES.items()},
    }


def _stack_seconds() -> float:
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "up.log"
        flags = [f"--data={folder}/data", f"--port={free_port()}", "--quiet"]
        begin = time.monotonic()
        with log.open("wb") as out:
            stack = subprocess.Popen([*UP, *flags], stdout=out, stderr=out)
        try:
            while "is ready at" not in log.read_text(encoding="utf-8"):
                if stack.poll() is not None:
                    raise RuntimeError(
                        f"the stack did not start:\n{log.read_text(encoding='utf-8')}"
                    )
                time.sleep(0.02)
            return time.monotonic() - begin
        finally:
            stack.send_signal(signal.SIGTERM)
            stack.wait()


async def _generator_seconds() -> float:
    begin = time.monotonic()
    async with running("generator", "tiny-flux"):
        return time.monotonic() - begin


def modules(program: str) -> int:
    """How many modules a process has imported after ``program``."""
    begin = "import sys\nfrom services.common.imports import import_first\n"
    done = subprocess.run(
        [sys.executable, "-c", f"{begin}{program}\nprint(len(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout.splitlines()[-1])


def tables(result: Mapping[str, Any]) -> Iterator[Table]:
    title = (
        f"ready after {result['stack_seconds']:.1f} s at best; the generator alone after "
        f"{result['generator_seconds']:.1f} s; ratio {result['to_generator']:.2f}"
    )
    shown = Table("process", "modules", title=title)
    for name, count in result["modules"].items():
        shown.add_row(name, str(count))
    yield shown
