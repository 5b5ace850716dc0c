"""Preset files, and what they allow."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dualprocess.schemas import ImageSettings
from dualprocess.v1 import tensor_pb2, vlm_pb2
from services.common.limits import MESSAGE_LIMIT, batch_fault, image_faults
from services.common.presets import DEFAULT_DIRECTORY, PresetError, load_presets
from services.common.settings import GpuServiceSettings
from services.vlm.service import main

PRESETS = load_presets()


def test_each_preset_does_its_own_default_image() -> None:
    for preset in PRESETS.generators.values():
        assert list(image_faults(preset, preset.image)) == []
        assert batch_fault(preset, preset.image, preset.optimizer.batch, [], "") is None


def test_the_tiny_pair_lies_in_the_checkout() -> None:
    assert (Path(PRESETS.generator("tiny-flux").model) / "model_index.json").exists()
    assert (Path(PRESETS.vlm("tiny-idefics2").model) / "config.json").exists()
    assert PRESETS.generator("flux-dev").model == "black-forest-labs/FLUX.1-dev"


def test_every_model_of_the_hub_is_pinned_to_a_commit_and_says_how_large_it_is() -> None:
    every = [*PRESETS.generators.values(), *PRESETS.vlms.values()]
    for preset in every:
        pinned = preset.revision is not None and re.fullmatch("[0-9a-f]{40}", preset.revision)
        assert bool(pinned) == preset.is_on_hub, preset.name
        assert (preset.weights_gib > 1) == preset.is_on_hub, preset.name
    assert len({preset.revision for preset in every if preset.is_on_hub}) == len(every) - 2


def test_the_directory_may_be_where_one_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(DEFAULT_DIRECTORY)
    assert load_presets(Path(".")) == PRESETS
    monkeypatch.chdir(DEFAULT_DIRECTORY / "vlms")
    assert load_presets(Path("..")) == PRESETS


def test_an_unknown_name_brings_the_known_ones() -> None:
    with pytest.raises(PresetError, match=r"generator 'tiny-flax' is unknown.*tiny-flux"):
        PRESETS.generator("tiny-flax")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("family: idefics2", "dtype"),
        ("- a list", "cheap.yaml"),
        ("family: [", "cheap.yaml"),
        ("family: a\nmodel: b\ndtype: float8\nchat: c", "float16"),
        ("family: a\nmodel: b\ndtype: float16\nchat: c\nprice: 3", "price"),
        ("family: external\nmodel: b", "model: a preset of the family external has no model"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, text: str, sentence: str) -> None:
    folder = tmp_path / "vlms"
    folder.mkdir()
    (folder / "cheap.yaml").write_text(text)
    with pytest.raises(PresetError, match=sentence):
        load_presets(tmp_path)


async def test_a_preset_without_weights_is_not_loaded(tmp_path: Path) -> None:
    (tmp_path / "vlms").mkdir()
    (tmp_path / "vlms" / "colour.yaml").write_text("family: external")
    settings = GpuServiceSettings.model_validate(
        {"preset": "colour", "presets": tmp_path, "port": 0}
    )
    with pytest.raises(PresetError, match="colour is external, so it has no weights to load here"):
        await main(settings)


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(PresetError, match="nowhere does not exist"):
        load_presets(tmp_path / "nowhere")


def test_a_side_the_model_can_not_do_brings_the_nearest() -> None:
    preset = PRESETS.generator("flux-schnell")
    image = preset.image.model_copy(update={"width": 500, "height": 9000})
    assert dict(image_faults(preset, image)) == {
        "width": "flux-schnell can't do 500 pixels; try 496 or 512",
        "height": "flux-schnell can't do 9000 pixels; try 2048",
    }


def test_guidance_where_there_is_none_is_a_fault() -> None:
    image = ImageSettings(width=512, height=512, num_inference_steps=1, guidance_scale=3.5)
    faults = dict(image_faults(PRESETS.generator("flux-schnell"), image))
    assert faults == {
        "guidance_scale": "flux-schnell has no guidance; leave the field out, or write 0"
    }
    assert dict(image_faults(PRESETS.generator("flux-dev"), image)) == {}


def test_a_batch_that_no_message_holds_is_a_fault() -> None:
    preset = PRESETS.generator("flux-schnell")
    image = preset.image.model_copy(update={"width": 2048, "height": 2048})
    largest = 2
    assert batch_fault(preset, image, largest, [], "") is None
    assert batch_fault(preset, image, largest + 1, [], "") == (
        "optimizer.batch",
        "3 images of 2048 × 2048 don't fit into one message of 64 MiB; write at most 2, and make "
        "accumulate larger",
    )


def _asked(drawings: int, mebibytes: int) -> list[vlm_pb2.Question]:
    drawing = vlm_pb2.VisualPrompt(image=bytes(mebibytes << 20))
    return [vlm_pb2.Question(question="?", answer="é" * 4000, visual_prompt=drawing)] * drawings


def test_drawings_take_their_room_of_the_message() -> None:
    preset = PRESETS.generator("flux-schnell")
    image = preset.image.model_copy(update={"width": 1024, "height": 1024})
    questions = _asked(drawings=6, mebibytes=3)
    largest = 7
    assert batch_fault(preset, image, largest, questions, "é" * 400) is None
    pixels = tensor_pb2.Tensor(shape=[largest, 3, 1024, 1024], data=bytes(largest * (6 << 20)))
    request = vlm_pb2.GuideRequest(images=pixels, questions=questions, question_postfix="é" * 400)
    assert request.ByteSize() <= MESSAGE_LIMIT
    assert batch_fault(preset, image, largest + 1, questions, "é" * 400) == (
        "optimizer.batch",
        "8 images of 1024 × 1024 don't fit into one message of 64 MiB with questions and drawings "
        "of 18.0 MiB; write at most 7 and make accumulate larger, or send smaller drawings",
    )


def test_drawings_that_leave_no_room_for_an_image_are_the_fault() -> None:
    preset = PRESETS.generator("flux-schnell")
    image = preset.image.model_copy(update={"width": 1024, "height": 1024})
    assert batch_fault(preset, image, 1, _asked(drawings=6, mebibytes=10), "") == (
        "questions",
        "questions and drawings of 60.0 MiB and one image of 1024 × 1024 don't fit into one "
        "message of 64 MiB; send smaller drawings, or fewer",
    )
