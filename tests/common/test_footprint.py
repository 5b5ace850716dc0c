"""What is counted on fake tensors is what runs, and decisions about cards follow from it."""

from __future__ import annotations

import logging
from itertools import pairwise

import pytest
import torch

from services.common.errors import StartError
from services.common.footprint import card, choice, recorded, spread, start, usual
from services.common.footprint.fake import HOST, bytes_of, weightless, weights_of
from services.common.footprint.footprint import Footprint, Kind, Work
from services.common.footprint.meter import Meter, marked
from services.common.memory import LEVELS, MemoryLevel, Quantization
from services.common.presets import load_presets
from services.generator.footprint.level import level as generator_level
from services.vlm.footprint.level import level as vlm_level

FLOAT = 4
ROWS, WIDE, INNER = 8, 256, 512
GIB = 2**30
CPU = torch.device("cpu")


def two_layers() -> torch.nn.Sequential:
    with weightless(), HOST:
        return torch.nn.Sequential(
            torch.nn.Linear(WIDE, INNER, bias=False),
            torch.nn.Linear(INNER, WIDE, bias=False),
        ).requires_grad_(False)


def test_two_layers_take_what_one_can_count_by_hand() -> None:
    network = two_layers()
    assert bytes_of(weights_of(network)) == 2 * WIDE * INNER * FLOAT
    meter = Meter("forward")
    meter.ignore(weights_of(network))
    with meter:
        x = torch.zeros(ROWS, WIDE, requires_grad=True)
        inner = network[0](x)
        y = network[1](inner)
        assert meter.live == ROWS * (WIDE + INNER + WIDE) * FLOAT
        # Nothing of a frozen layer waits for its output.
        del inner
        assert meter.live == ROWS * (WIDE + WIDE) * FLOAT
        meter.phase = "backward"
        y.backward(torch.zeros(ROWS, WIDE))
    product = 2 * ROWS * WIDE * INNER
    assert meter.counts["forward"].flops == 2 * product
    assert meter.counts["forward"].launches == 2
    assert meter.counts["backward"].flops == 2 * product
    # The gradient of y, that of the inner one and that of x.
    assert meter.counts["backward"].peak == ROWS * (WIDE * 2 + WIDE + INNER + WIDE) * FLOAT
    assert meter.live == ROWS * (WIDE * 2 + WIDE) * FLOAT


def test_views_take_nothing_and_a_phase_begins_where_the_backward_pass_gets_there() -> None:
    network = two_layers()
    meter = Meter("forward")
    meter.ignore(weights_of(network))

    def reached() -> None:
        meter.phase = "first layer"

    with meter:
        x = torch.zeros(ROWS, WIDE, requires_grad=True)
        y = network[1](marked(network[0](x), reached))
        before = meter.live
        y.view(-1).unsqueeze(0).expand(3, -1)
        assert meter.live == before
        meter.phase = "second layer"
        y.backward(torch.zeros(ROWS, WIDE))
    once = 2 * ROWS * WIDE * INNER
    assert [meter.counts[name].flops for name in ("second layer", "first layer")] == [once, once]


def test_views_of_what_was_there_before_are_not_new() -> None:
    network = two_layers()
    meter = Meter()
    with meter:
        kept = next(network.parameters()).detach().view(-1)
    assert meter.live == 0
    assert kept.numel() == WIDE * INNER


def test_reading_a_fake_number_is_counted() -> None:
    network = two_layers()
    meter = Meter()
    with meter:
        float(network[0](torch.zeros(1, WIDE)).sum())
    assert meter.reads == 1


def made(
    peak: float,
    level: MemoryLevel = "fast",
    quantize: Quantization | None = None,
    kind: Kind = "vlm",
) -> Footprint:
    work = Work(kind, "a-model", 512, 1, 0, level, quantize)
    step = int(peak * GIB)
    return Footprint(work, step, 0, step, 0, 0, 0, {"forward": 1}, 1, 1)


#: 40 GiB at once, 20 computed again, 6 with 4 bits.
SETTINGS = [
    *(made(gib, level) for gib, level in zip((40, 35, 30, 20), LEVELS, strict=True)),
    *(made(gib, level, "nf4") for gib, level in zip((26, 21, 16, 6), LEVELS, strict=True)),
]


@pytest.mark.parametrize(
    ("free", "level"), [(80, "fast"), (40, "decoder"), (36, "blocks"), (24, "lean")]
)
def test_auto_is_the_fastest_level_that_fits(
    free: int, level: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        assert start.level(SETTINGS, "auto", None, free * GIB) == level
    assert f"a-model at memory level {level}: it needs about" in caplog.text


def test_a_start_that_cannot_fit_names_the_settings_that_do() -> None:
    with pytest.raises(
        StartError, match=r"needs about .* with --memory fast .*write --memory blocks$"
    ):
        start.level(SETTINGS, "fast", None, 36 * GIB)
    with pytest.raises(StartError, match=r"write --quantize nf4$"):
        start.level(SETTINGS, "auto", None, 8 * GIB)
    with pytest.raises(StartError, match=r"even the smallest settings need 7.* larger card"):
        start.level(SETTINGS, "auto", None, 4 * GIB)


def test_float8_takes_what_int8_takes() -> None:
    settings = [made(20), made(10, "fast", "int8")]
    assert start.level(settings, "auto", "float8", 12 * GIB) == "fast"
    with pytest.raises(StartError):
        start.level(settings, "auto", None, 12 * GIB)


def test_two_processes_share_a_card_at_the_least_cost() -> None:
    small = [made(5, "fast"), made(3, "lean")]
    found = choice.together([SETTINGS, small], card.usable(48))
    assert found is not None
    assert [(one.work.level, one.work.quantize) for one in found] == [
        ("decoder", None),
        ("fast", None),
    ]
    assert choice.together([SETTINGS, small], card.usable(8)) is None
    apart = choice.apart([SETTINGS, small], card.usable(24))
    assert apart is not None
    assert [one.work.level for one in apart] == ["lean", "fast"]


def test_what_is_recorded_of_a_preset_holds_for_its_copies() -> None:
    preset = load_presets().vlm("tiny-idefics2")
    copy = preset.model_copy(update={"name": "mine"})
    assert [one.work.preset for one in usual.usual(copy)] == ["mine"] * 6
    other = preset.model_copy(update={"dtype": "bfloat16"})
    assert recorded.settings(other, 64, 1, 5) == []


@pytest.mark.parametrize(("gib", "expected"), [(79, "fast"), (23, "lean"), (None, "auto")])
def test_a_generator_starts_at_the_fastest_level_that_its_card_holds(
    gib: int | None, expected: str
) -> None:
    preset = load_presets().generator("flux-schnell")
    free = None if gib is None else gib * GIB
    assert generator_level(preset, "auto", CPU, lambda _: free) == expected


def test_a_vlm_that_no_level_makes_fit_says_what_would() -> None:
    preset = load_presets().vlm("idefics2")
    assert vlm_level(preset, "auto", [CPU], lambda _: 40 * GIB) == "fast"
    with pytest.raises(StartError, match=r"idefics2 needs about .*--quantize int8$"):
        vlm_level(preset, "auto", [CPU], lambda _: 12 * GIB)


def test_a_vlm_that_several_cards_hold_says_how_many() -> None:
    preset = load_presets().vlm("pixtral")
    with pytest.raises(
        StartError,
        match=r"spread it over 2 such cards \(--device cuda:0,cuda:1, or dualprocess up --vlm "
        r"pixtral:1x2\), or write --quantize int8$",
    ):
        vlm_level(preset, "auto", [CPU], lambda _: 16 * GIB)
    assert vlm_level(preset, "auto", [CPU] * 2, lambda _: 16 * GIB) == "lean"
    assert vlm_level(preset, "auto", [CPU] * 2, lambda _: 23 * GIB) == "fast"
    with pytest.raises(StartError, match=r"GiB of each of 2 cards .* over 3 such cards \(--device"):
        vlm_level(preset, "auto", [CPU] * 2, lambda _: 10 * GIB)


def test_a_card_of_several_needs_at_most_the_fullest_ones_weights_and_all_else() -> None:
    work = Work("vlm", "a-model", 512, 1, 0, "fast", None)
    one = Footprint(work, 30, 0, 35, 0, 0, 0, {}, 1, 1, layers=10, layer=2)
    needs = [(each.weights, each.step) for count in (2, 3) for each in spread.over([one], count)]
    # The first card has what is no layer: 10.
    assert needs == [(16, 21), (12, 17)]
    assert spread.over([one], 11) == []
    assert spread.over([one], 1) == [one]
    assert spread.over([made(40, kind="generator")], 2) == []


@pytest.mark.parametrize(
    ("sizes", "first", "runs"),
    [
        ([2, 2, 2, 2], 0, [2, 2]),
        ([2, 2, 2, 2], 4, [1, 3]),
        ([2, 2, 2, 2], 100, [1, 3]),
        ([1, 1, 1, 9], 0, [3, 1]),
        ([1, 4, 1, 4, 1], 4, [1, 2, 2]),
    ],
)
def test_runs_fill_the_devices_evenly(sizes: list[int], first: int, runs: list[int]) -> None:
    ends = spread.run_ends(sizes, first, len(runs))
    assert [end - begin for begin, end in pairwise([0, *ends])] == runs
