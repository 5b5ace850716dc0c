"""Preset files, and what they allow."""

from __future__ import annotations

from pathlib import Path

import pytest

from dualprocess.schemas import ImageSettings
from services.common.limits import batch_fault, image_faults
from services.common.presets import PresetError, load_presets

PRESETS = load_presets()


def test_each_preset_does_its_own_default_image() -> None:
    for preset in PRESETS.generators.values():
        assert list(image_faults(preset, preset.image)) == []
        assert batch_fault(preset, preset.image, preset.optimizer.batch) is None


def test_the_tiny_pair_lies_in_the_checkout() -> None:
    assert (Path(PRESETS.generator("tiny-flux").model) / "model_index.json").exists()
    assert (Path(PRESETS.vlm("tiny-idefics2").model) / "config.json").exists()
    assert PRESETS.generator("flux-dev").model == "black-forest-labs/FLUX.1-dev"


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
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, text: str, sentence: str) -> None:
    folder = tmp_path / "vlms"
    folder.mkdir()
    (folder / "cheap.yaml").write_text(text)
    with pytest.raises(PresetError, match=sentence):
        load_presets(tmp_path)


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
    assert batch_fault(preset, image, largest) is None
    assert f"write at most {largest}" in (batch_fault(preset, image, largest + 1) or "")
