"""A VLM whose text layers lie on several devices says what it says on one."""

from __future__ import annotations

import gc
from collections.abc import Sequence

import pytest
import torch

from services.common.errors import StartError
from services.common.presets import VlmPreset
from services.vlm import registry
from services.vlm.answers import Answer
from services.vlm.families.base import VlmFamily
from services.vlm.guide import Guard, Guidance, guide, guide_together
from services.vlm.score import answer, score
from tests.vlm.cards import Cards, OnCard, card
from tests.vlm.conftest import picture
from tests.vlm.rows import ROWS, Row
from tests.vlm.test_waits import QUESTIONS

POSTFIX = "Answer with Yes or No."
GUARD = Guard(margin=0.9, worst_case=0.1)
CPU = torch.device("cpu")
(QWEN3,) = (row for row in ROWS if row.preset == "qwen3-vl")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def on_cards(preset: VlmPreset) -> VlmFamily:
    return registry.load(preset, card(0), None, [card(1)])


def sent(image: torch.Tensor) -> torch.Tensor:
    return image.to(card(0), non_blocking=True)


def assert_same(spread: Guidance, alone: Guidance) -> None:
    assert spread.loss == pytest.approx(alone.loss, abs=1e-5)
    for one, other in zip(spread.answers, alone.answers, strict=True):
        assert_same_answers(one, other)
    difference = (spread.gradient.float() - alone.gradient.float()).norm()
    assert difference < 1e-5 * alone.gradient.float().norm()


def assert_same_answers(spread: Sequence[Answer], alone: Sequence[Answer]) -> None:
    assert [one.predicted for one in spread] == [one.predicted for one in alone]
    assert [one.loss for one in spread] == pytest.approx([one.loss for one in alone], abs=1e-5)


def words(vlm: VlmFamily, image: torch.Tensor) -> str:
    return answer(vlm, picture(image), "Is it red?", "", max_new_tokens=4, field="")


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_it_says_what_it_says_on_one_device(row: Row, images: dict[str, torch.Tensor]) -> None:
    """A tensor on the wrong card raises, forward and backward."""
    # More than one pass of the text model.
    preset = row.tiny.model_copy(update={"conversations_at_once": 2})
    alone = registry.load(preset, CPU)
    photo = images["photo"]
    calls = [photo, images["low"]]
    with Cards() as cards:
        spread = on_cards(preset)
        there = [sent(call) for call in calls]
        cards.waits = 0
        guidances = guide_together(spread, there, QUESTIONS[:2], POSTFIX, GUARD)
        assert cards.waits == 1, "the host waits once, however many devices there are"
        scored = score(spread, picture(photo), QUESTIONS[:2], POSTFIX)
        said = words(spread, photo)
    for one, other in zip(
        guidances, guide_together(alone, calls, QUESTIONS[:2], POSTFIX, GUARD), strict=True
    ):
        assert_same(one, other)
    assert_same_answers(scored, score(alone, picture(photo), QUESTIONS[:2], POSTFIX))
    assert said == words(alone, photo)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_only_layers_of_the_text_model_leave_the_first_device(row: Row) -> None:
    with Cards():
        vlm = on_cards(row.tiny)
    text = vlm.text_model
    on_first, on_last = (
        {id(one) for one in vlm.model.parameters() if one.device == card(number)}
        for number in (0, 1)
    )
    assert len(on_first) + len(on_last) == len(list(vlm.model.parameters()))
    assert {id(one) for one in text.layers[0].parameters()} <= on_first
    assert {id(one) for one in text.layers[-1].parameters()} <= on_last
    assert on_last <= {id(one) for part in (text.layers, text.norm) for one in part.parameters()}


def held_by(device: torch.device) -> int:
    gc.collect()
    return sum(type(one) is OnCard and one.device == device for one in gc.get_objects())


def test_what_all_layers_take_goes_to_a_card_once_a_pass(images: dict[str, torch.Tensor]) -> None:
    with Cards() as cards:
        vlm = on_cards(QWEN3.tiny)
        assert [next(layer.parameters()).device for layer in vlm.text_model.layers] == [
            card(0),
            card(1),
            card(1),
        ]
        before = held_by(card(1))
        cards.moves.clear()
        score(vlm, picture(images["photo"]), QUESTIONS[:2], POSTFIX)
        assert held_by(card(1)) == before, "nothing is kept when the pass is over"
    there, back = (
        sorted(len(shape) for shape, source, _ in cards.moves.elements() if source == card(number))
        for number in (0, 1)
    )
    # Where images are, and what they add behind the second layer; hidden states, sine and cosine;
    # the mask.
    assert there == [1, 2, 3, 3, 3, 4]
    assert back == [2], "only the hidden states that answers are read from"


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_in_bfloat16(row: Row, images: dict[str, torch.Tensor]) -> None:
    preset = row.tiny.model_copy(update={"dtype": "bfloat16"})
    asked = images["photo"].bfloat16(), QUESTIONS[:2], POSTFIX
    spread = registry.load(preset, CPU, None, [CPU])
    assert_same(guide(spread, *asked), guide(registry.load(preset, CPU), *asked))


@pytest.mark.parametrize("quantization", ["int8", "nf4"])
def test_quantised_and_computed_again(quantization: str, images: dict[str, torch.Tensor]) -> None:
    preset = QWEN3.tiny.model_copy(update={"quantize": quantization, "memory": "lean"})
    with Cards():
        vlm = on_cards(preset)
        assert {one.device for one in vlm.text_model.layers[-1].parameters()} == {card(1)}
        spread = guide(vlm, sent(images["photo"]), QUESTIONS[:2], POSTFIX)
    alone = guide(registry.load(preset, CPU), images["photo"], QUESTIONS[:2], POSTFIX)
    assert_same(spread, alone)


def test_more_devices_than_layers() -> None:
    with pytest.raises(StartError, match="--device names 4 devices, and the model has 3 layers"):
        registry.load(QWEN3.tiny, CPU, None, [CPU] * 3)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
@pytest.mark.parametrize("row", ROWS, ids=str)
@pytest.mark.parametrize(("dtype", "most"), [("float32", 1e-5), ("bfloat16", 1e-2)])
def test_on_two_gpus(row: Row, dtype: str, most: float, images: dict[str, torch.Tensor]) -> None:
    preset = row.tiny.model_copy(update={"dtype": dtype})
    one, other = torch.device("cuda", 0), torch.device("cuda", 1)
    alone = guide(registry.load(preset, one), images["photo"].to(one), QUESTIONS, POSTFIX)
    vlm = registry.load(preset, one, None, [other])
    spread = guide(vlm, images["photo"].to(one), QUESTIONS, POSTFIX)
    assert spread.loss == pytest.approx(alone.loss, abs=most)
    difference = (spread.gradient - alone.gradient).norm() / alone.gradient.norm()
    assert difference < most
    photo = picture(images["photo"])
    assert answer(vlm, photo, "Is it red?", "", max_new_tokens=3, field="") is not None
