"""Properties of loss and gradient, whatever the model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from dualprocess.v1 import vlm_pb2
from services.common.errors import InvalidInput
from services.common.presets import VlmPreset
from services.vlm import guide as guide_module
from services.vlm import registry
from services.vlm.conversation import AskedQuestion
from services.vlm.families.base import VlmFamily
from services.vlm.guide import answer_loss, guide
from services.vlm.preprocess import clamp
from services.vlm.score import answer, score
from services.vlm.visual_prompt import VisualPrompt
from tests.vlm.conftest import picture, png

SMILING = AskedQuestion("Is the man smiling?", "Yes")
SOFA = AskedQuestion("What color is the sofa?", "a red sofa")
POSTFIX = "Answer with Yes or No."


def drawing(mode: vlm_pb2.VisualPromptMode.ValueType, side: int = 64) -> VisualPrompt:
    """A red bar over rows 10 to 19 of 64, white elsewhere."""
    pixels = np.full((side, side, 3), 255, np.uint8)
    pixels[10 * side // 64 : 20 * side // 64] = (255, 0, 0)
    return VisualPrompt.decode(png(pixels), mode, "visual_prompt")


def asked_with(prompt: VisualPrompt) -> AskedQuestion:
    return AskedQuestion(SMILING.question, SMILING.answer, prompt)


def test_loss_equals_the_models_own(vlm: VlmFamily, images: dict[str, torch.Tensor]) -> None:
    """The shortcut (tower once, logits at answers only) against a plain call with labels."""
    batch = torch.cat([images["photo"], images["low"]])
    for asked, postfix in ((SMILING, POSTFIX), (SOFA, "")):
        talk = vlm.converse(asked, postfix, vlm.image_placeholder(batch))
        ids = torch.tensor([talk.input_ids])
        labels = torch.full_like(ids, -100)
        labels[0, list(talk.answer_positions)] = ids[0, list(talk.answer_positions)]
        for image in torch.split(batch, 1):
            plain = vlm.model(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                pixel_values=vlm.pixel_values((image + 1) / 2)[None],
                labels=labels,
            ).loss
            assert guide(vlm, image, [asked], postfix).loss == pytest.approx(plain.item(), abs=1e-5)


def test_many_questions_are_the_mean_of_single_ones(
    vlm: VlmFamily, images: dict[str, torch.Tensor]
) -> None:
    batch = torch.cat([images["photo"], images["low"]])
    prompt = asked_with(drawing(vlm_pb2.VISUAL_PROMPT_MODE_SOLID))
    questions = [SMILING, SOFA, prompt]
    together = guide(vlm, batch, questions, POSTFIX)
    singles = [
        [guide(vlm, image, [asked], POSTFIX) for asked in questions]
        for image in torch.split(batch, 1)
    ]
    assert together.loss == pytest.approx(np.mean([[one.loss for one in row] for row in singles]))
    for row, wanted in zip(together.answers, singles, strict=True):
        assert [a.loss for a in row] == pytest.approx([one.loss for one in wanted], abs=1e-5)
    gradient = torch.cat([sum(one.gradient for one in row) for row in singles]) / 6  # type: ignore[misc]
    torch.testing.assert_close(together.gradient, gradient, rtol=1e-4, atol=1e-7)


def test_passes_of_the_text_model_add_up(
    vlm: VlmFamily, images: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = torch.cat([images["photo"], images["low"]])
    whole = guide(vlm, batch, [SMILING, SOFA], POSTFIX)
    monkeypatch.setattr(guide_module, "MAX_CONVERSATIONS", 1)
    parts = guide(vlm, batch, [SMILING, SOFA], POSTFIX)
    assert parts.loss == pytest.approx(whole.loss, abs=1e-6)
    torch.testing.assert_close(parts.gradient, whole.gradient, rtol=1e-4, atol=1e-8)


def test_gradient_is_the_slope(preset: VlmPreset, images: dict[str, torch.Tensor]) -> None:
    """Central differences in float64, along the gradient."""
    vlm = registry.load(preset, torch.device("cpu"))
    image = images["smooth"]
    direction = guide(vlm, image, [SMILING], POSTFIX).gradient.double()
    direction /= direction.norm()
    vlm.model.double()
    step = 1e-3

    def loss(offset: float) -> float:
        # answer_loss computes in float32 up to the pixels: exact enough at this step.
        return answer_loss(vlm, image.double() + offset * direction, [SMILING], POSTFIX).item()

    slope = (loss(step) - loss(-step)) / (2 * step)
    expected = guide(vlm, image.double(), [SMILING], POSTFIX).gradient.double() * direction
    assert slope == pytest.approx(expected.sum().item(), rel=1e-2)


def test_saturated_pixels_come_back(vlm: VlmFamily) -> None:
    values = torch.tensor([-3.0, -0.5, 0.5, 3.0], requires_grad=True)
    clamped = clamp(values, -1.0, 1.0)
    assert clamped.tolist() == [-1.0, -0.5, 0.5, 1.0]
    # Descent with these gradients moves -3 up and 3 down: back into the range.
    (inward,) = torch.autograd.grad(clamped, values, torch.tensor([-1.0, 1.0, 1.0, 1.0]))
    assert inward.tolist() == [-1.0, 1.0, 1.0, 1.0]
    (outward,) = torch.autograd.grad(
        clamp(values, -1.0, 1.0), values, torch.tensor([1.0, 1.0, 1.0, -1.0])
    )
    assert outward.tolist() == [0.0, 1.0, 1.0, 0.0]

    white = guide(vlm, torch.full((1, 3, 64, 64), 1.5), [SMILING], POSTFIX)
    assert (white.gradient > 0).any(), "some pixels would darken"
    assert (white.gradient >= 0).all(), "none is pushed further out"


@pytest.mark.parametrize("level", [-1.0, 0.0, 1.0])
def test_a_flat_image_gives_numbers(vlm: VlmFamily, level: float) -> None:
    guidance = guide(vlm, torch.full((1, 3, 64, 64), level), [SMILING], POSTFIX)
    assert np.isfinite(guidance.loss)
    assert torch.isfinite(guidance.gradient).all()


def test_the_vlm_is_not_blind_to_brightness(
    vlm: VlmFamily, images: dict[str, torch.Tensor]
) -> None:
    photo = guide(vlm, images["photo"], [SMILING], POSTFIX).loss
    assert guide(vlm, images["photo"] * 0.3 - 0.5, [SMILING], POSTFIX).loss != photo


def test_a_solid_drawing_hides_what_is_under_it(
    vlm: VlmFamily, images: dict[str, torch.Tensor]
) -> None:
    prompt = drawing(vlm_pb2.VISUAL_PROMPT_MODE_SOLID)
    overlaid = prompt.over(images["photo"])
    assert torch.equal(overlaid[..., 20:, :], images["photo"][..., 20:, :])
    assert overlaid[0, :, 12, 5].tolist() == [1.0, -1.0, -1.0]
    guidance = guide(vlm, images["photo"], [asked_with(prompt)], POSTFIX)
    assert (guidance.gradient[..., 10:20, :] == 0).all()
    assert (guidance.gradient[..., 20:, :] != 0).any()


def test_a_transparent_drawing_is_half_of_everything(images: dict[str, torch.Tensor]) -> None:
    overlaid = drawing(vlm_pb2.VISUAL_PROMPT_MODE_TRANSPARENT).over(images["photo"])
    white = (images["photo"] + 1) / 2
    torch.testing.assert_close(overlaid[..., 20:, :], white[..., 20:, :])


def test_a_drawing_of_another_size_is_resized(images: dict[str, torch.Tensor]) -> None:
    small = drawing(vlm_pb2.VISUAL_PROMPT_MODE_SOLID).over(images["wide"])
    assert small.shape == images["wide"].shape
    assert small[0, :, 10, 5].tolist() == [1.0, -1.0, -1.0]


def test_dtype_of_the_gradient_is_the_images(
    vlm: VlmFamily, images: dict[str, torch.Tensor]
) -> None:
    guidance = guide(vlm, images["photo"].bfloat16(), [SMILING], POSTFIX)
    assert guidance.gradient.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (AskedQuestion("What is <image>?", "Yes"), r"questions\.0\.question: '<image>'"),
        (AskedQuestion("Well?", "Yes<end_of_utterance>"), r"questions\.0\.answer"),
        (AskedQuestion("Well?", ""), r"questions\.0\.answer: '' is no token"),
    ],
)
def test_what_cannot_be_asked(
    vlm: VlmFamily, images: dict[str, torch.Tensor], asked: AskedQuestion, sentence: str
) -> None:
    with pytest.raises(InvalidInput, match=sentence):
        guide(vlm, images["photo"], [asked], POSTFIX)


def test_score_lays_drawings_over_the_saved_picture(
    vlm: VlmFamily, images: dict[str, torch.Tensor]
) -> None:
    prompt = asked_with(drawing(vlm_pb2.VISUAL_PROMPT_MODE_SOLID))
    seen: Sequence[AskedQuestion] = [SMILING, prompt]
    plain, drawn = score(vlm, picture(images["photo"]), seen, POSTFIX)
    guidance = guide(vlm, images["photo"], seen, POSTFIX)
    assert plain.loss == pytest.approx(guidance.answers[0][0].loss, abs=1e-4)
    assert drawn.loss == pytest.approx(guidance.answers[0][1].loss, abs=1e-4)
    assert drawn.loss != plain.loss


def test_answer_is_greedy_and_repeatable(vlm: VlmFamily, images: dict[str, torch.Tensor]) -> None:
    said = [
        answer(vlm, picture(images["photo"]), "Well?", "", max_new_tokens=5, field="questions.0")
        for _ in range(2)
    ]
    assert said[0] == said[1]
    assert "<" not in said[0]
