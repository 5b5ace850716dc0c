"""``dualprocess fit`` tells which cards hold a pair."""

from __future__ import annotations

import json

import pytest

from services.common.footprint import recorded
from services.common.presets import load_presets
from services.generator.footprint import level as generator_level
from services.local.fit.__main__ import main

PAIR = ["tiny-flux", "tiny-idefics2"]


def test_it_tells_needs_and_cards(capsys: pytest.CaptureFixture[str]) -> None:
    main([*PAIR, "--cards", "16,24"])
    told = capsys.readouterr().out
    assert "64 × 64, batch 4, 5 questions" in told
    for setting in ("fast", "decoder", "blocks", "lean", "16 GiB", "24 GiB"):
        assert setting in told
    assert "80 GiB" not in told
    assert "None of these cards" not in told


def test_programs_get_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    main([*PAIR, "--json", "--questions", "1"])
    told = json.loads(capsys.readouterr().out)
    assert [card["gib"] for card in told["cards"]] == [16, 24, 48, 80]
    assert {one["work"]["questions"] for one in told["vlm"]} == {1}
    generator = told["cards"][0]["one"]["generator"]
    assert generator["memory"] == "fast"
    assert generator["quantize"] is None
    spread = told["cards"][0]["three"]
    assert spread["generator"] == told["cards"][0]["two"]["generator"]
    assert spread["vlm"]["bytes"] < told["cards"][0]["two"]["vlm"]["bytes"]
    first = told["generator"][0]
    assert generator["bytes"] > max(first["step"], first["encode"]) > first["weights"] > 0


def test_a_pair_that_fits_nowhere_is_told_what_it_needs(capsys: pytest.CaptureFixture[str]) -> None:
    main(["flux-schnell", "idefics2", "--cards", "2"])
    told = " ".join(capsys.readouterr().out.split())
    assert "None of these cards holds the pair: the smallest settings need" in told
    assert "--cards" in told


def test_a_vlm_that_two_cards_hold(capsys: pytest.CaptureFixture[str]) -> None:
    main(["flux-schnell", "pixtral", "--cards", "24", "--json"])
    (card,) = json.loads(capsys.readouterr().out)["cards"]
    assert card["two"]["vlm"]["quantize"] == "int8"
    assert (card["three"]["vlm"]["quantize"], card["three"]["vlm"]["memory"]) == (None, "fast")
    main(["flux-schnell", "pixtral", "--cards", "24"])
    told = capsys.readouterr().out
    assert "VLM over two, at most" in " ".join(told.replace("│", " ").split())


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["flux", "idefics2"], "generator 'flux' is unknown: choose one of"),
        (["tiny-flux", "idefics"], "VLM 'idefics' is unknown: choose one of"),
    ],
)
def test_unknown_names_are_told(
    arguments: list[str], fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert fault in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong", ["--questions=33", "--questions=0", "--size=x", "--cards=24,", ""]
)
def test_wrong_options_are_told(wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*PAIR, wrong] if wrong else ["tiny-flux"])
    assert ended.value.code == 2
    assert "usage: dualprocess fit" in capsys.readouterr().err


def test_what_is_recorded_is_what_is_counted() -> None:
    """If the code of a step changed: `dualprocess fit --write`."""
    from services.vlm.footprint.count import at_every_setting

    preset = load_presets().vlm("tiny-idefics2")
    first = next(iter(at_every_setting(preset, 64, 1, 1)))
    assert recorded.settings(preset, 64, 1, 1)[0] == first


def test_a_device_without_memory_of_its_own_keeps_the_choice() -> None:
    import torch

    preset = load_presets().generator("tiny-flux")
    assert generator_level.level(preset, "auto", torch.device("cpu")) == "auto"
    assert generator_level.level(preset, "auto", torch.device("cpu"), lambda _: 2**40) == "fast"
