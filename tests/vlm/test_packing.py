"""Questions about one image share the computation of what their conversations begin with."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch.nn.functional import cosine_similarity
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.architectures.vlms import vlm as full_size
from dualprocess.v1 import vlm_pb2
from services.common.errors import NonFinite
from services.vlm import masks, registry
from services.vlm.conversation import AskedQuestion, Conversation
from services.vlm.families.base import VlmFamily
from services.vlm.guide import Guidance, guide
from services.vlm.packing import Packed, rows, tree
from services.vlm.score import score
from tests.vlm.conftest import picture
from tests.vlm.rows import ROWS, Row
from tests.vlm.test_families import drawing, plain_loss
from tests.vlm.waits import META, Waits

POSTFIX = "Answer with Yes or No."
PLAIN = [
    AskedQuestion("Is the man smiling?", "Yes"),
    AskedQuestion("Is the man wearing a hat?", "No", weight=3.0),
    AskedQuestion("What color is the sofa?", "a red sofa"),
    AskedQuestion("Is the man smiling?", "No"),
    AskedQuestion("Is it raining?", "Yes"),
]
SOLID = drawing(vlm_pb2.VISUAL_PROMPT_MODE_SOLID)
TRANSPARENT = drawing(vlm_pb2.VISUAL_PROMPT_MODE_TRANSPARENT)
DRAWN = [
    *(AskedQuestion(asked.question, asked.answer, TRANSPARENT) for asked in PLAIN[1:3]),
    AskedQuestion("Is it red?", "Yes", SOLID),
]


@pytest.fixture(scope="module", params=ROWS, ids=str)
def row(request: pytest.FixtureRequest) -> Row:
    row: Row = request.param
    return row


@pytest.fixture
def vlm(row: Row) -> VlmFamily:
    torch.set_num_threads(1)
    return row.load()


def one_by_one(vlm: VlmFamily, images: torch.Tensor, asked: list[AskedQuestion]) -> Guidance:
    preset = vlm.preset
    vlm.preset = preset.model_copy(update={"conversations_at_once": 1})
    guidance = guide(vlm, images, asked, POSTFIX)
    vlm.preset = preset
    return guidance


def losses_of(guidance: Guidance) -> list[float]:
    return [answer.loss for row in guidance.answers for answer in row]


@pytest.mark.parametrize("asked", [PLAIN, PLAIN + DRAWN], ids=["plain", "drawn"])
def test_together_as_one_by_one(
    vlm: VlmFamily, images: dict[str, torch.Tensor], asked: list[AskedQuestion]
) -> None:
    """Far from black and white: where a resize overshoots, the clamp looks at the whole
    gradient."""
    batch = torch.cat([images["low"], images["photo"] * 0.6]) * 0.8
    together, alone = guide(vlm, batch, asked, POSTFIX), one_by_one(vlm, batch, asked)
    assert losses_of(together) == pytest.approx(losses_of(alone), abs=1e-5)
    assert together.loss == pytest.approx(alone.loss, abs=1e-6)
    difference = (together.gradient - alone.gradient).norm() / alone.gradient.norm()
    assert difference < 1e-5
    for one, other in zip(together.answers, alone.answers, strict=True):
        assert [each.predicted for each in one] == [each.predicted for each in other]


def test_together_as_one_by_one_in_bfloat16(row: Row, images: dict[str, torch.Tensor]) -> None:
    preset = row.tiny.model_copy(update={"dtype": "bfloat16"})
    vlm = registry.load(preset, torch.device("cpu"))
    batch = images["low"] * 0.8
    together, alone = guide(vlm, batch, PLAIN, POSTFIX), one_by_one(vlm, batch, PLAIN)
    assert losses_of(together) == pytest.approx(losses_of(alone), abs=0.1)
    ours, theirs = together.gradient.flatten(), alone.gradient.flatten()
    assert cosine_similarity(ours, theirs, dim=0) > 0.99


def test_each_answer_is_the_models_own(
    vlm: VlmFamily, row: Row, images: dict[str, torch.Tensor]
) -> None:
    """Layers with a window smaller than the image see as far as in a conversation of its own."""
    text = vlm.text_model.config
    if getattr(text, "sliding_window", None):
        text.sliding_window = 7
    scored = score(vlm, picture(images["photo"]), PLAIN, POSTFIX)
    wanted = [plain_loss(vlm, row, images["photo"], asked) for asked in PLAIN]
    assert [answer.loss for answer in scored] == pytest.approx(wanted, abs=1e-4)


def test_a_single_question_needs_no_mask(
    vlm: VlmFamily, images: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """But where image tokens look ahead."""
    made = []
    additive = masks.additive

    def noted(*given: Any) -> torch.Tensor:
        made.append(given)
        return additive(*given)

    monkeypatch.setattr(masks, "additive", noted)
    batch = torch.cat([images["photo"], images["low"]])
    guide(vlm, batch, PLAIN[:1], POSTFIX)
    assert bool(made) == (vlm.preset.family == "gemma3")
    guide(vlm, batch, PLAIN, POSTFIX)
    assert made


def test_a_tree_in_preorder() -> None:
    talks = [Conversation(ids, [len(ids) - 1]) for ids in ([1, 2, 5, 9], [1, 2, 3, 4], [1, 2, 5])]
    one = tree(talks)
    assert [[one.ids[place] for place in path] for path in one.paths] == [
        [1, 2, 5],
        [1, 2, 3],
        [1, 2],
    ]
    assert list(one.ids) == [1, 2, 3, 5]
    assert list(one.depths) == [0, 1, 2, 2]
    assert list(one.last) == [3, 3, 2, 3]
    (line,) = (row.tree for row in rows(talks[:1], [0], at_once=4))
    assert line.ids == [1, 2, 5, 9]
    assert not line.branches


def test_a_mask_shows_what_each_conversation_would() -> None:
    """Every token against the definition: those above it, in its window, and its block."""
    talks = [Conversation([1, 2, 2, 2, *ids, 0], [4]) for ids in ([5, 6], [5, 7, 8], [3, 9, 9])]
    packed = Packed.of([tree(talks), tree(talks[:1])])
    is_block = packed.input_ids == 2
    for window, block in itertools.product((None, 3), (None, is_block)):
        mask = masks.additive(packed, block, window, torch.float32, torch.device("cpu"))
        for index, one in enumerate(packed.trees):
            for path in one.paths:
                seen = mask[index, 0][path][:, path] == 0
                places = torch.arange(len(path))
                distance = places[:, None] - places
                wanted = distance >= 0
                if block is not None:
                    in_block = block[index, path]
                    wanted |= in_block & in_block[:, None]
                if window is not None:
                    wanted &= distance < window
                assert torch.equal(seen, wanted)
                others = [place for place in range(mask.shape[-1]) if place not in path]
                assert (mask[index, 0][path][:, others] == -torch.inf).all()


def test_rows_and_passes_are_bounded() -> None:
    long = [Conversation([1, *[index] * 3000, 0], [3000]) for index in range(4)]
    parts = rows(long, [0] * 4, at_once=3)
    assert [len(row.numbers) for row in parts] == [2, 2], "a mask is not too large"
    short = [Conversation([1, index, 0], [2]) for index in range(7)]
    parts = rows(short, [0] * 7, at_once=3)
    assert [list(row.numbers) for row in parts] == [[0, 1, 2], [3, 4, 5], [6]]


#: Words that the models' own tokenizers, other than the tiny ones, take as one token.
ASKED = [
    AskedQuestion(f"Is the man {doing}?", "Yes")
    for doing in ("smiling", "wearing a hat", "in the red", "wearing red", "smiling in the hat")
]


def test_five_questions_cost_little_more_than_one() -> None:
    """Of the architecture in full size that has the fewest image tokens, and so gains least."""
    vlm = full_size("idefics2", META)
    images = torch.zeros(1, 3, 512, 512, device=META, dtype=torch.bfloat16)
    flops = []
    for asked in (ASKED[:1], ASKED):
        with Waits(), FlopCounterMode(display=False) as counted, pytest.raises(NonFinite):
            guide(vlm, images, asked, POSTFIX)
        flops.append(counted.get_total_flops())
    assert flops[1] <= 1.4 * flops[0]
