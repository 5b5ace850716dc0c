"""The job files of the paper's tasks: complete, and with the drawings that their script draws."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dualprocess.cli import specs
from examples.paper.draw import DRAWINGS, FOLDER, drawn
from services.common.presets import load_presets
from services.orchestrator.api.resolve import resolve_job

FILES = sorted(FOLDER.parent.glob("*.yaml"))
PRESETS = load_presets()


def test_there_is_one_for_each_task() -> None:
    assert {path.stem for path in FILES} == {"commonsense", *DRAWINGS}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_service_would_take_it(path: Path) -> None:
    job = resolve_job(specs.load(str(path)), PRESETS)
    (question,) = job.questions
    assert (question.visual_prompt is not None) == (path.stem in DRAWINGS)
    if question.visual_prompt is not None:
        drawing = Image.open(io.BytesIO(question.visual_prompt.image))
        assert drawing.size == (job.image.width, job.image.height)


@pytest.mark.parametrize("name", DRAWINGS)
def test_the_drawing_is_what_the_script_draws(name: str) -> None:
    with Image.open(FOLDER / f"{name}.png") as kept:
        assert np.array_equal(np.asarray(kept.convert("RGB")), np.asarray(drawn(name)))
