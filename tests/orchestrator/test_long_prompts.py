"""Prompts that a generator does not read to their end: in the answer where its tokenizer is here,
else in the job and its events once the generator has told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import torch

from dualprocess.schemas import EventRecord, Job
from dualprocess.v1 import generator_pb2 as pb
from services.common.presets import load_presets
from services.generator import registry
from services.generator.families.base import GeneratorFamily
from services.orchestrator.api.reading import warnings
from tests.orchestrator.conftest import SPEC, Api, Site
from tests.orchestrator.scripted import ScriptedGenerator

LONG = "a large red circle above a small blue square " * 6
TOLD = "the prompt is cut, says the generator"


@pytest.fixture(scope="module")
def family() -> GeneratorFamily:
    return registry.load(load_presets().generator("tiny-flux"), torch.device("cpu"))


@pytest.mark.parametrize(
    "prompts",
    [
        [LONG],
        [LONG, "a circle", LONG[3:]],
        ["İ 猫 🙂  " * 40],
        ["z x " * 100],
        [LONG * 3],
        ["a circle"],
        ["a large red circle above a small blue square"],
    ],
)
def test_the_api_says_what_the_generator_says(family: GeneratorFamily, prompts: list[str]) -> None:
    preset = load_presets().generator("tiny-flux")
    told = warnings(preset, prompts)
    assert told == family.unread(prompts, pb.ImageSpec())
    assert bool(told) == (len(prompts[0]) > 200)


def test_of_a_model_on_the_hub_it_says_nothing() -> None:
    for preset in load_presets().generators.values():
        if preset.name != "tiny-flux":
            assert warnings(preset, [LONG * 20]) == []


async def test_the_answer_to_the_submission_tells_it(api: Api) -> None:
    job = await api.submit(prompt=LONG)
    (sentence,) = job.warnings
    assert sentence.startswith("prompt is too long for tiny-flux: it reads as far as “")
    assert (await api.submit()).warnings == []
    answer = await api.http.post("/v1/images", json=IMAGES | {"prompt": LONG, "wait": 0})
    assert answer.json()["warnings"] == [sentence]


async def test_each_job_of_a_batch_tells_of_its_own(api: Api) -> None:
    spec = {key: value for key, value in SPEC.items() if key != "prompt"}
    body = {"spec": spec, "prompts": ["a circle", LONG], "repeats": 2}
    batch = (await api.http.post("/v1/batches", json=body)).json()
    told = {one["name"]: (await api.job(one["id"])).warnings for one in batch["jobs"]}
    assert [bool(warnings) for _, warnings in sorted(told.items())] == [False, False, True, True]


IMAGES: dict[str, Any] = {"prompt": "a circle", "generator": "tiny-flux", "seeds": [1, 2]}


async def events(api: Api, job: Job) -> AsyncIterator[Any]:
    answer = await api.http.get(f"/v1/jobs/{job.id}/events")
    for line in answer.text.splitlines():
        if line.startswith("data: "):
            yield EventRecord.model_validate_json(f'{{"id": "0", "event": {line[6:]}}}').event


async def test_what_the_generator_tells_is_an_event_and_in_the_job(
    api: Api, site: Site, generator: ScriptedGenerator
) -> None:
    site.start_worker(pause_seconds=0.01)
    generator.warns = [TOLD]
    # Once, though the first attempt breaks and the second tells it again.
    generator.breaks = 1
    job = await api.ended((await api.submit()).id)
    assert job.warnings == [TOLD]
    told = [event async for event in events(api, job) if event.type == "warning"]
    assert [event.message for event in told] == [TOLD]
    answer = await api.http.post("/v1/images", json=IMAGES | {"wait": 30})
    job = Job.model_validate_json(answer.content)
    assert job.warnings == [TOLD]
    told = [event async for event in events(api, job) if event.type == "warning"]
    assert [event.message for event in told] == [TOLD]


async def test_what_was_told_at_submission_is_not_told_again(
    api: Api, site: Site, generator: ScriptedGenerator
) -> None:
    submitted = await api.submit(prompt=LONG)
    assert submitted.warnings
    site.start_worker()
    generator.warns = submitted.warnings
    assert (await api.ended(submitted.id)).warnings == submitted.warnings
