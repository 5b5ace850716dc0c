"""How much of a prompt each family reads. Text after the reported place changes nothing, and text
before it does."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from dualprocess.v1 import generator_pb2 as pb
from dualprocess.v1 import generator_pb2_grpc
from services.generator import registry
from services.generator.families.base import Conditioning, GeneratorFamily
from tests.generator.rows import ROWS, Row
from tests.generator.specs import image_spec, optimize_spec
from tests.generator.wire import ScriptedVlm, requests, vlm_served, whole

GUIDED = [row for row in ROWS if row.tiny.guidance == "classifier_free"]
each_row = pytest.mark.parametrize("row", ROWS, ids=str)
#: Words, numbers, capitals, letters of other scripts and of two code points, odd blanks.
TEXTS = {
    "words": "a red circle above a blue square " * 40,
    "capitals": "  The İstanbul of OLD   days\n" * 40,
    "scripts": "ein schöner Tag, 猫が寝ている 🙂 " * 40,
    "one-word": "x" * 1500,
}


@cache
def loaded(row: Row) -> GeneratorFamily:
    return row.load()


def place(family: GeneratorFamily, prompt: str, *, negative: bool = False) -> int:
    return max(reader.read(prompt) for reader in family.readers(negative=negative))


def same(left: Conditioning, right: Conditioning) -> bool:
    return all(torch.equal(left[name], right[name]) for name in left)


@each_row
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_nothing_behind_the_place_is_read_and_all_before_it_is(row: Row, text: str) -> None:
    family, image = loaded(row), row.images[0]
    cut = place(family, text)
    assert 0 < cut < len(text)
    (sentence,) = family.unread([text], image)
    assert row.preset in sentence
    told = max(reader.read(text) for reader in family.readers(negative=False) if not reader.summary)
    assert text[:told].split()[-1][-20:] in sentence
    assert text[told:].split()[0][:20] in sentence
    assert text[cut:].split()[0][:20] in sentence
    assert f"{len(text[cut:].strip())} of {len(text)} characters" in sentence
    whole = family.encode(text, image)
    # The word that is cut stays: how a tokenizer parts it depends on its end.
    rest = text[cut:][:30] + " of quite another thing" * 40
    assert same(whole, family.encode(text[:cut] + rest, image))
    before = text[: cut - 1].rstrip()
    other = "q" if before[-1].lower() != "q" else "z"
    assert not same(whole, family.encode(before[:-1] + other + text[len(before) :], image))


@each_row
def test_prompts_that_differ_behind_the_place_give_one_image(row: Row) -> None:
    family, image = loaded(row), row.images[0]
    text = TEXTS["words"]
    cut = place(family, text)
    end = text.index(" ", cut)
    others = [text, text[:end] + " under a green triangle" * 20]
    schedule = family.schedule(image)
    noise = family.noise([3], image)
    made = [
        family.sample(noise, family.encode(other, image), schedule, len(schedule))
        for other in others
    ]
    assert torch.equal(*made)


@each_row
def test_a_prompt_that_is_read_to_its_end_is_not_spoken_of(row: Row) -> None:
    family, image = loaded(row), row.images[0]
    assert family.unread(["Photo of a man", "ein schöner Tag 🙂"], image) == []
    text = TEXTS["words"]
    assert family.unread([text[: place(family, text)]], image) == []
    # Lost blanks are not reported.
    assert family.unread(["a circle" + " " * 2000], image) == []


@pytest.mark.parametrize("row", GUIDED, ids=str)
def test_a_negative_prompt_is_spoken_of_where_it_takes_part(row: Row) -> None:
    family = loaded(row)
    text = TEXTS["words"]
    guided = pb.ImageSpec(guidance_scale=5, negative_prompt=text)
    (sentence,) = family.unread(["a circle"], guided)
    assert sentence.startswith("image.negative_prompt is too long")
    assert family.unread(["a circle"], pb.ImageSpec(negative_prompt=text)) == []
    image = pb.ImageSpec()
    image.CopyFrom(row.images[0])
    image.guidance_scale, image.negative_prompt = 5, text
    end = text.index(" ", place(family, text, negative=True))
    whole = family.encode("a circle", image)
    image.negative_prompt = text[:end] + " under a green triangle" * 20
    assert same(whole, family.encode("a circle", image))
    image.negative_prompt = "an" + text[1:]
    assert not same(whole, family.encode("a circle", image))


def test_flux_loses_nothing_that_t5_reads() -> None:
    """CLIP gives a summary only, of the first 77 tokens."""
    (row,) = (row for row in ROWS if row.preset == "flux-dev")
    family = loaded(row)
    clip, t5 = family.readers(negative=False)
    text = TEXTS["words"][: t5.read(TEXTS["words"])]
    assert clip.read(text) < len(text) == t5.read(text)
    assert family.unread([text], row.images[0]) == []


def test_what_only_the_summary_of_clip_holds_is_told_as_that() -> None:
    (row,) = (row for row in ROWS if row.preset == "flux-schnell")
    family = registry.load(
        row.tiny.model_copy(update={"max_sequence_length": 16}), torch.device("cpu")
    )
    clip, t5 = family.readers(negative=False)
    text = TEXTS["words"]
    within = text[: clip.read(text)]
    (sentence,) = family.unread([within], row.images[0])
    assert "only the summary that its CLIP makes" in sentence
    assert "nothing" not in sentence
    (sentence,) = family.unread([text], row.images[0])
    assert "only the summary that its CLIP makes, which ends before “" in sentence
    assert f"the last {len(text[clip.read(text) :].strip())} of {len(text)}" in sentence
    assert t5.read(text) < clip.read(text)


def test_of_many_prompts_the_first_are_told_and_the_rest_counted() -> None:
    (row,) = (row for row in ROWS if row.preset == "sd-1.4")
    prompts = [*[TEXTS["words"]] * 5, "a circle", TEXTS["scripts"]]
    told = loaded(row).unread(prompts, row.images[0])
    assert [sentence.split()[0] for sentence in told[:3]] == ["prompts.0", "prompts.1", "prompts.2"]
    assert told[3].startswith("3 more prompts are too long as well")
    assert len(told) == 4


async def test_a_job_tells_it_before_its_first_step(
    stub: generator_pb2_grpc.GeneratorAsyncStub, vlm: ScriptedVlm
) -> None:
    async with vlm_served(vlm) as port:
        spec = optimize_spec(steps=1, target=f"127.0.0.1:{port}")
        told, _ = await whole(stub.Optimize(iter(requests(spec))))
        assert not any(response.HasField("warnings") for response in told)
        spec.prompts[:] = [TEXTS["words"]]
        told, _ = await whole(stub.Optimize(iter(requests(spec))))
    kinds = [response.WhichOneof("message") for response in told]
    assert kinds[:3] == ["started", "warnings", "step"]
    (sentence,) = told[1].warnings.sentences
    assert sentence.startswith("prompt is too long for flux-schnell: it reads as far as “…")


async def test_images_tell_it_with_the_first(
    stub: generator_pb2_grpc.GeneratorAsyncStub,
) -> None:
    async def told(prompt: str) -> list[int]:
        spec = pb.GenerateSpec(prompt=prompt, image=image_spec(), seeds=[1, 2])
        call = stub.Generate(iter([pb.GenerateRequest(spec=spec)]))
        return [len(response.warnings) async for response in call]

    assert await told(TEXTS["words"]) == [1, 0]
    assert await told("a circle") == [0, 0]
