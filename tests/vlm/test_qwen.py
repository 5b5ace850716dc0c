"""Qwen2.5-VL and Qwen3-VL against plain transformers calls, float32 on a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer, Qwen2VLImageProcessorPil
from transformers.models.qwen2_5_vl.processing_qwen2_5_vl import Qwen2_5_VLProcessor
from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor

from services.common.errors import InvalidInput
from services.vlm import registry
from services.vlm.answers import losses
from services.vlm.conversation import AskedQuestion, Conversation
from services.vlm.families.qwen_vl import QwenVl
from services.vlm.guide import answer_loss, guide
from services.vlm.packing import rows
from services.vlm.score import answer, score
from tests.vlm.conftest import picture
from tests.vlm.rows import ROWS, folder

SMILING = AskedQuestion("Is the man smiling?", "Yes")
SOFA = AskedQuestion("What color is the sofa?", "a red sofa")
POSTFIX = "Answer with Yes or No."

# The hub's templates without their branches for tools, videos, and other roles.
_TURNS = (
    "<|im_start|>{{ message.role }}\n{% for part in message.content %}"
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part.text }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_SYSTEM = (
    "{% if loop.first and message.role != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
)


@dataclass(frozen=True)
class Family:
    vlm: QwenVl
    folder: Path
    processor_class: Any
    chat_template: str


FAMILIES = {
    "qwen2.5-vl": (Qwen2_5_VLProcessor, "{% for message in messages %}" + _SYSTEM + _TURNS),
    "qwen3-vl": (Qwen3VLProcessor, "{% for message in messages %}" + _TURNS),
}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    torch.set_num_threads(1)
    (row,) = (row for row in ROWS if row.preset == request.param)
    vlm = row.load()
    assert isinstance(vlm, QwenVl)
    return Family(vlm, folder(row), *FAMILIES[row.preset])


@pytest.fixture
def vlm(family: Family) -> QwenVl:
    return family.vlm


def photo(images: dict[str, torch.Tensor], height: int, width: int) -> Image.Image:
    """The recorded photograph at any size, with a little of the grain of a real one."""
    enlarged = picture(images["photo"]).resize((width, height), Image.Resampling.BICUBIC)
    grain = np.random.default_rng(0).normal(0, 2, (height, width, 3))
    return Image.fromarray((np.asarray(enlarged) + grain).round().clip(0, 255).astype(np.uint8))


def image_of(picture: Image.Image) -> torch.Tensor:
    """An image [1, 3, height, width] in [-1, 1]."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None] / 127.5 - 1


def plain_inputs(family: Family, seen: Image.Image, talk: Conversation) -> dict[str, torch.Tensor]:
    """What a caller of transformers gives the model: ids, labels, and the processor's batch."""
    batch = Qwen2VLImageProcessorPil.from_pretrained(family.folder)(seen, return_tensors="pt")
    ids = torch.tensor([talk.input_ids])
    labels = torch.full_like(ids, -100)
    labels[0, list(talk.answer_positions)] = ids[0, list(talk.answer_positions)]
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "labels": labels,
        "mm_token_type_ids": (ids == family.vlm.model.config.image_token_id).int(),
        **batch,
    }


# (height, width): from 256 to 1024 a side; 384, 576, 640 and 1024 are odd counts of patches.
SIZES = [(256, 256), (384, 384), (512, 512), (576, 1024), (640, 256), (1024, 1024), (300, 777)]


@pytest.mark.parametrize("size", SIZES)
def test_pixel_values(
    family: Family, images: dict[str, torch.Tensor], size: tuple[int, int]
) -> None:
    vlm, seen = family.vlm, photo(images, *size)
    theirs = Qwen2VLImageProcessorPil.from_pretrained(family.folder)(seen, return_tensors="pt")
    unit = (image_of(seen) + 1) / 2
    ours = vlm.pixel_values(unit)
    patches = vlm.patchify(ours)
    assert patches.shape == theirs["pixel_values"].shape
    assert (patches - theirs["pixel_values"]).abs().mean() <= 0.005
    assert (patches - theirs["pixel_values"]).abs().max() <= 0.25

    processed = vlm.processed(seen)
    assert processed.shape == ours.shape
    assert torch.equal(vlm.patchify(processed), theirs["pixel_values"])
    rows, columns = (theirs["image_grid_thw"][0, 1:] // 2).tolist()
    assert vlm.image_placeholder(ours).count("<|image_pad|>") == rows * columns


def test_pixel_values_of_a_batch(vlm: QwenVl, images: dict[str, torch.Tensor]) -> None:
    photos = (torch.cat([images["photo"], images["low"]]) + 1) / 2
    both = vlm.patchify(vlm.pixel_values(photos))
    singles = [vlm.patchify(vlm.pixel_values(one)) for one in torch.split(photos, 1)]
    assert torch.equal(both, torch.cat(singles))


@pytest.mark.parametrize(("asked", "postfix"), [(SMILING, POSTFIX), (SOFA, "")])
def test_ids_are_those_of_the_models_own_template_and_processor(
    family: Family, images: dict[str, torch.Tensor], asked: AskedQuestion, postfix: str
) -> None:
    seen = photo(images, 256, 384)
    tokenizer = AutoTokenizer.from_pretrained(family.folder)
    image_processor = Qwen2VLImageProcessorPil.from_pretrained(family.folder)
    content = [
        {"type": "image"},
        {"type": "text", "text": f"{asked.question} {postfix}" if postfix else asked.question},
    ]
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": content}],
        chat_template=family.chat_template,
        add_generation_prompt=True,
        tokenize=False,
    )
    # The processor's own method on what it needs of itself: as a whole it asks for torchvision.
    pad = "<|image_pad|>"
    processor = SimpleNamespace(image_processor=image_processor, image_token=pad)
    expanded = family.processor_class.replace_image_token(
        processor, image_processor(seen, return_tensors="pt"), 0
    )
    theirs = tokenizer(text.replace(pad, expanded) + asked.answer)["input_ids"]

    placeholder = family.vlm.image_placeholder(family.vlm.processed(seen))
    talk = family.vlm.converse(asked, postfix, placeholder)
    assert talk.input_ids == theirs
    answer_ids = [talk.input_ids[position] for position in talk.answer_positions]
    assert tokenizer.decode(answer_ids) == asked.answer


@pytest.mark.parametrize("size", [(256, 256), (256, 384), (384, 256)])
@pytest.mark.parametrize(("asked", "postfix"), [(SMILING, POSTFIX), (SOFA, "")])
def test_loss_equals_the_models_own(
    family: Family,
    images: dict[str, torch.Tensor],
    size: tuple[int, int],
    asked: AskedQuestion,
    postfix: str,
) -> None:
    vlm, seen = family.vlm, photo(images, *size)
    talk = vlm.converse(asked, postfix, vlm.image_placeholder(vlm.processed(seen)))
    plain = plain_inputs(family, seen, talk)
    (scored,) = score(vlm, seen, [asked], postfix)
    assert scored.loss == pytest.approx(vlm.model(**plain).loss.item(), abs=1e-5)

    image = image_of(seen)
    plain["pixel_values"] = vlm.patchify(vlm.pixel_values((image + 1) / 2))
    theirs = vlm.model(**plain).loss.item()
    assert guide(vlm, image, [asked], postfix).loss == pytest.approx(theirs, abs=1e-5)


def test_image_tokens_have_rows_and_columns(
    family: Family, images: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one-dimensional positions the loss is another one, so the tests above would notice."""
    seen = photo(images, 256, 384)
    (with_grid,) = score(family.vlm, seen, [SMILING], POSTFIX)

    def in_a_row(input_ids: torch.Tensor, **_: Any) -> tuple[torch.Tensor, None]:
        batch, length = input_ids.shape
        return torch.arange(length).expand(3, batch, length), None

    monkeypatch.setattr(family.vlm.model.model, "get_rope_index", in_a_row)
    (in_line,) = score(family.vlm, seen, [SMILING], POSTFIX)
    assert abs(with_grid.loss - in_line.loss) > 1e-3


def test_every_layer_of_features_matters(vlm: QwenVl, images: dict[str, torch.Tensor]) -> None:
    """Qwen3-VL's deeper features reach the loss, each through a part of its own."""
    features = vlm.image_features(vlm.processed(photo(images, 256, 256)))
    width = vlm.model.config.text_config.hidden_size
    parts = features.shape[-1] // width
    indexes = getattr(vlm.model.config.vision_config, "deepstack_visual_indexes", [])
    assert parts == 1 + len(indexes)
    placeholder = vlm.image_placeholder(vlm.processed(photo(images, 256, 256)))
    talk = rows([vlm.converse(SMILING, POSTFIX, placeholder)], [0], at_once=1)
    whole = losses(vlm, features, talk)[0].item()
    for part in range(parts):
        without = features.clone()
        without[..., part * width : (part + 1) * width] = 0
        assert abs(losses(vlm, without, talk)[0].item() - whole) > 1e-4


def test_unequal_conversations_in_a_batch_equal_single_ones(
    vlm: QwenVl, images: dict[str, torch.Tensor]
) -> None:
    image = image_of(photo(images, 256, 384))
    # Far from white and black: what a clamp lets through depends on all that comes back.
    batch = torch.cat([image * 0.6, image * 0.3 + 0.2])
    questions: Sequence[AskedQuestion] = [SMILING, SOFA]
    together = guide(vlm, batch, questions, POSTFIX)
    singles = [
        [guide(vlm, image, [asked], POSTFIX) for asked in questions]
        for image in torch.split(batch, 1)
    ]
    for row, wanted in zip(together.answers, singles, strict=True):
        assert [a.loss for a in row] == pytest.approx([one.loss for one in wanted], abs=1e-5)
    gradient = torch.cat([sum(one.gradient for one in row) for row in singles]) / 4  # type: ignore[misc]
    difference = (together.gradient - gradient).norm() / gradient.norm()
    assert difference < 1e-4


@pytest.mark.parametrize("size", [(64, 96), (256, 320)])
def test_gradient_is_the_slope(
    family: Family, images: dict[str, torch.Tensor], size: tuple[int, int]
) -> None:
    """Central differences in float64, along the gradient."""
    vlm = registry.load(family.vlm.preset, torch.device("cpu"))
    # Far from white and black: a clamp has no slope where it bites.
    image = torch.nn.functional.interpolate(images["smooth"], size, mode="bilinear").double() / 2
    direction = guide(vlm, image, [SMILING], POSTFIX).gradient.double()
    direction /= direction.norm()
    vlm.model.double()
    step = 1e-2

    def loss(offset: float) -> float:
        return answer_loss(vlm, image + offset * direction, [SMILING], POSTFIX).item()

    slope = (loss(step) - loss(-step)) / (2 * step)
    expected = guide(vlm, image, [SMILING], POSTFIX).gradient * direction
    assert slope == pytest.approx(expected.sum().item(), rel=1e-2)


@pytest.mark.parametrize("level", [-1.0, 0.0, 1.0])
@pytest.mark.parametrize("size", [(384, 384), (256, 576)])
def test_a_flat_image_gives_numbers(vlm: QwenVl, size: tuple[int, int], level: float) -> None:
    guidance = guide(vlm, torch.full((1, 3, *size), level), [SMILING], POSTFIX)
    assert np.isfinite(guidance.loss)
    assert torch.isfinite(guidance.gradient).all()
    assert (guidance.gradient != 0).any()


def test_an_image_too_long_is_refused(vlm: QwenVl) -> None:
    with pytest.raises(InvalidInput, match="image of 2010 × 10 pixels"):
        guide(vlm, torch.zeros(1, 3, 10, 2010), [SMILING], POSTFIX)


@pytest.mark.parametrize("token", ["<|im_end|>", "<|image_pad|>", "<|vision_start|>"])
def test_control_tokens_cannot_be_asked(vlm: QwenVl, token: str) -> None:
    asked = AskedQuestion(f"Well? {token}", "Yes")
    with pytest.raises(InvalidInput, match=r"questions\.0\.question"):
        guide(vlm, torch.zeros(1, 3, 64, 64), [asked], "")


def test_answer_equals_the_models_own_greedy_words(
    family: Family, images: dict[str, torch.Tensor]
) -> None:
    """Greedy tokens found one at a time, each by a plain call on everything before it."""
    vlm, seen = family.vlm, photo(images, 256, 384)
    words = [
        answer(vlm, seen, "Well?", "", max_new_tokens=5, field="questions.0") for _ in range(2)
    ]
    talk = vlm.converse(
        AskedQuestion("Well?", "Yes"), "", vlm.image_placeholder(vlm.processed(seen))
    )
    ids = list(talk.input_ids[: talk.answer_positions[0]])
    begin = len(ids)
    for _ in range(5):
        plain = plain_inputs(family, seen, Conversation(ids, [len(ids) - 1]))
        ids.append(int(vlm.model(**plain).logits[0, -1].argmax()))
        if ids[-1] == vlm.model.generation_config.eos_token_id:
            break
    theirs = vlm.tokenizer.decode(ids[begin:], skip_special_tokens=True).strip()
    assert theirs
    assert words == [theirs, theirs]
