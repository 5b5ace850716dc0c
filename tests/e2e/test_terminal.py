"""The command line on a real terminal: pictures, and completion with TAB."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from examples.demo import EXAMPLES
from tests.e2e.stack import Stack

DUALPROCESS = str(Path(sys.executable).with_name("dualprocess"))
#: The upper half of a cell, whose two colours are two pixels.
HALF_BLOCK = "▀"


def on_a_terminal(stack: Stack, *arguments: str, **environment: str) -> str:
    """The output of the command on a terminal with 100 columns that answers no queries."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    chosen = {"TERM": "xterm-256color", "COLORTERM": "truecolor", "DUALPROCESS_URL": stack.url}
    with subprocess.Popen(
        [DUALPROCESS, *arguments],
        stdin=its,
        stdout=its,
        stderr=its,
        env={**os.environ, **chosen, **environment},
        start_new_session=True,
    ) as process:
        os.close(its)
        written = b""
        try:
            while piece := os.read(ours, 1 << 16):
                written += piece
        except OSError:
            pass  # How a terminal ends on Linux.
        os.close(ours)
    assert process.returncode == 0, written.decode()
    return written.decode()


def test_pictures_are_shown_above_their_paths(stack: Stack, tmp_path: Path) -> None:
    arguments = ["generate", "a circle", "--to", str(tmp_path)]
    shown = on_a_terminal(stack, *arguments)
    assert shown.count(HALF_BLOCK) > 1000
    assert shown.index(HALF_BLOCK) < shown.index("image-0.png")
    plain = on_a_terminal(stack, *arguments, NO_COLOR="1")
    assert HALF_BLOCK not in plain
    assert "image-0.png" in plain


def test_a_job_that_is_watched_shows_its_previews(stack: Stack) -> None:
    changes = ["optimizer.steps=2", "eval.images=1", "eval.every=1"]
    settings = [part for change in changes for part in ("--set", change)]
    shown = on_a_terminal(stack, "submit", str(EXAMPLES / "red-circle.yaml"), *settings, "--watch")
    # Two previews and the samples in the end.
    assert shown.count(HALF_BLOCK) > 3000
    assert "probability" in shown


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("dualprocess ask x --vlm tiny", "tiny-idefics2"),
        ("dualprocess generate x --generator tiny", "tiny-flux"),
        ("dualprocess list --status can", "cancelled"),
    ],
)
def test_tab_offers_what_there_is(stack: Stack, words: str, offered: str) -> None:
    environment = {
        "_DUALPROCESS_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(words.count(" ")),
        "DUALPROCESS_URL": stack.url,
    }
    completed = subprocess.run(
        [DUALPROCESS],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    assert completed.stdout.split() == [offered]
