"""The notebook runs as it stands, in a kernel of its own, against a running service."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode
from PIL import Image

from tests.e2e.stack import Stack

PATH = Path(__file__).parents[2] / "examples" / "red-circle.ipynb"

pytestmark = [pytest.mark.timeout(240), pytest.mark.long]


@pytest.fixture
def executed(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> NotebookNode:
    monkeypatch.setenv("DUALPROCESS_URL", stack.url)
    notebook = nbformat.read(PATH, as_version=4)
    return NotebookClient(notebook, resources={"metadata": {"path": PATH.parent}}).execute()


def test_it_shows_what_the_lora_learned(executed: NotebookNode) -> None:
    outputs = [output for cell in executed.cells for output in cell.get("outputs", [])]
    pictures = [
        output.data["image/png"] for output in outputs if "image/png" in output.get("data", {})
    ]
    curves, sheet, of_diffusers = (
        Image.open(io.BytesIO(base64.b64decode(picture))) for picture in pictures
    )
    assert curves.width > curves.height
    assert sheet.width > sheet.height
    red, green, blue = np.moveaxis(np.asarray(of_diffusers.convert("RGB")).astype(int), -1, 0)
    assert (red > 2 * np.maximum(green, blue)).mean() > 0.05
    told = "".join(output.text for output in outputs if output.output_type == "stream")
    off = re.search(r"pixels differ by at most (\d+) of 255", told)
    assert off is not None, told
    assert int(off[1]) <= 1
