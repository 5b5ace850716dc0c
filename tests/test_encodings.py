"""Files and output are UTF-8, whatever the machine's own encoding is."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dualprocess.cli import app

ROOT = Path(__file__).parents[1]
PARTS = ("dualprocess", "services", "models", "benchmarks", "examples", "docs")

#: Not UTF-8, nor taken for it by Python.
MACHINES = [
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"},
    {"LC_ALL": "C"},
    {"PYTHONIOENCODING": "cp1252"},
]
PROMPT = "ein größeres 赤い丸 für 👍"
JOB = f"prompt: {PROMPT}\nquestions: []\ngenerator: tiny-flux\nvlm: tiny-idefics2\n"
READ_AND_HELP = """
import sys
from dualprocess.cli import app, specs
for file in sys.argv[1], "-":
    spec = specs.load(file, ["questions=[{question: a, answer: b}]"])
    print(ascii(spec.prompt))
app(["up", "--help"], prog_name="dualprocess")
"""


@pytest.mark.parametrize("machine", MACHINES, ids=str)
def test_a_machine_of_another_encoding_reads_and_says_the_same(
    machine: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "größer.yaml").write_text(JOB, encoding="utf-8-sig")
    done = subprocess.run(
        [sys.executable, "-c", READ_AND_HELP, str(tmp_path / "größer.yaml")],
        env={**os.environ, "PYTHONPATH": str(ROOT), **machine},
        input=JOB.encode(),
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.split(b"\n")[:2] == [ascii(PROMPT).encode()] * 2
    # Its help has a character that is not in ASCII, nor in every code page.
    assert b"Usage" in done.stdout


NOT_UTF8 = [
    "prompt: größer".encode("cp1252"),
    JOB.encode("utf-16"),
    b"\x89PNG\r\n\x1a\n",
    b"prompt: \xff\n",
    b'{"prompt": "\xed\xa0\x80"}',
]


@pytest.mark.parametrize("command", ["submit", "batch"])
@pytest.mark.parametrize("data", NOT_UTF8)
def test_a_file_that_is_not_utf_8_is_named(command: str, data: bytes, tmp_path: Path) -> None:
    (tmp_path / "größer.yaml").write_bytes(data)
    refused = CliRunner().invoke(app, [command, str(tmp_path / "größer.yaml")])
    assert refused.exit_code == 2
    assert "größer.yaml: is not UTF-8 on line 1; save it as UTF-8" in refused.stderr


def _unsaid(path: Path) -> Iterator[str]:
    """Calls that open a text in the machine's own encoding."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call) or any(word.arg == "encoding" for word in node.keywords):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        is_open = isinstance(node.func, ast.Name) and node.func.id == "open"
        if name in ("read_text", "write_text") or is_open:
            yield f"{path.relative_to(ROOT)}:{node.lineno}"


def test_every_text_file_is_opened_as_utf_8() -> None:
    files = [path for part in PARTS for path in (ROOT / part).rglob("*.py")]
    assert len(files) > 200
    assert [place for path in files for place in _unsaid(path)] == []
