"""The code accepts the documentation's examples as they are written."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from dualprocess.cli import datasets, specs
from dualprocess.schemas import JobSpec
from examples.paper.draw import drawn
from services.common.presets import Presets, VlmPreset, load_presets
from services.orchestrator.api.resolve import resolve_job

DOCS = Path(__file__).parents[1] / "docs"
PRESETS = load_presets()


def blocks(page: str, language: str) -> list[str]:
    found: Sequence[str] = re.findall(
        rf"^```{language}\n(.*?)^```$", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL
    )
    return list(found)


def test_the_first_job_file(tmp_path: Path) -> None:
    (block,) = blocks("index.md", "yaml")
    (tmp_path / "job.yaml").write_text(block)
    resolve_job(specs.load(str(tmp_path / "job.yaml")), PRESETS)


@pytest.mark.parametrize(("index", "jobs"), [(0, 6), (1, 3), (2, 9)])
def test_the_data_sets(tmp_path: Path, index: int, jobs: int) -> None:
    drawn("horizon").save(tmp_path / "horizon.png")
    (tmp_path / "dataset.yaml").write_text(blocks("bulk.md", "yaml")[index])
    found = datasets.load(str(tmp_path / "dataset.yaml"))
    assert len(found) == jobs
    for spec in found:
        resolve_job(spec, PRESETS)


def test_the_job_for_curl() -> None:
    (command,) = (block for block in blocks("api.md", "") if "curl" in block)
    (body,) = re.findall(r"-d '(.*?)'", command, re.DOTALL)
    resolve_job(JobSpec.model_validate(json.loads(body)), PRESETS)


def test_the_preset_of_another_model() -> None:
    (block,) = blocks("adding-a-family.md", "yaml")
    preset = VlmPreset.model_validate({"name": "another", **yaml.safe_load(block)})
    known = PRESETS.vlm("llava-1.5")
    assert (preset.family, preset.chat) == (known.family, known.chat)


def test_a_teacher_of_ones_own() -> None:
    preset, job = map(yaml.safe_load, blocks("teachers.md", "yaml"))
    colour = VlmPreset.model_validate({"name": "colour", **preset})
    assert colour.is_external
    vlms = {**PRESETS.vlms, "colour": colour}
    spec = resolve_job(JobSpec.model_validate(job), Presets(PRESETS.generators, vlms))
    assert [(use.name, use.weight) for use in spec.vlm] == [("tiny-idefics2", 1), ("colour", 3)]


def test_the_parts_of_a_question_and_a_start() -> None:
    (asked,) = (block for block in blocks("tasks.md", "yaml") if "visual_prompt" in block)
    (start,) = blocks("using-a-lora.md", "yaml")
    parts = yaml.safe_load(asked) | yaml.safe_load(start)
    parts["questions"][0]["visual_prompt"]["image"] = "iVBORw0KGgo="
    JobSpec.model_validate(
        {"prompt": "a boat", "generator": "flux-schnell", "vlm": "idefics2", **parts}
    )
